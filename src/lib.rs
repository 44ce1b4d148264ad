//! Train and grow TokenFormer language models on any GPU that wgpu reaches, with WGSL compute shaders.
//!
//! A TokenFormer (arXiv 2410.23168) replaces every linear projection by attention to learnable parameter
//! tokens, so a trained model grows by appending tokens. The modules of this crate, each using only those
//! below it:
//!
//! - [`commands`]: the program. One verb per file.
//! - `bench`: how fast the device and each kernel are; every timed result is checked first.
//! - [`study`]: does growing pay? Arms, budgets, seeds, and a report that says what they show.
//! - [`train`]: the loop; what a step, a growth and a checkpoint of a run are.
//! - [`tune`]: times the kernels of matrix products on a device and refuses those that are wrong.
//! - [`runtime`]: where a plan and a device meet: memory, programs, generation, checks of operators; the ranks of a run.
//! - [`model`]: what a forward pass is. Start with [`model::tokenformer`]. Knows nothing of GPUs.
//! - [`ops`]: one file per operator (matmul and attention: a folder) with formula, forward, backward, f64 reference and test cases.
//! - [`graph`]: model code runs once and leaves a list of kernel calls; a plan lays them out in memory.
//! - [`gpu`]: the only module that knows wgpu. Adapters, buffers, pipelines, dispatches.
//! - [`kernel`]: kernels as data: shader files, what a device can do, which kernel computes which product.
//! - [`data`]: tokenizers, token shards, batch order, the built-in corpus.
//! - [`checkpoint`]: one safetensors file per checkpoint, written so that it is whole or not there.
//! - [`config`], [`error`], [`rng`], [`mod@array`], [`cache`]: leaves that every module may use.
//! - `report`: tables, pictures and pages as text; knows nothing of what is reported.
//!
//! How a step runs: model code records typed ops into a [`graph::Graph`]; walking its tape backwards
//! records the gradients; [`graph::plan::Plan`] checks every limit and packs activations by lifetime;
//! [`runtime::memory::Memory`] allocates exactly that; a step replays the flat list of dispatches. Nothing is
//! allocated after the first step until a growth, the order is fixed, there are no float atomics: the same bits in every
//! run on the same adapter and driver.
//!
//! ```
//! use tokenformer::config::{GrowthConfig, RunConfig};
//!
//! // A run as the command line has it: a preset, and what is different here.
//! let mut config = RunConfig::preset("quickstart")?;
//! config.model.resolve_vocab(65)?;
//!
//! // It grows at step 100: 128 more parameter tokens in the feed-forward part of each layer.
//! config.growth = vec![GrowthConfig { at_step: 100, ffn_slot_num: Some(256), ..GrowthConfig::default() }];
//! config.validate()?;
//!
//! // The model as it starts, and as it ends: keys and values of width 64 in 2 layers.
//! let sizes: Vec<u64> = config.stages()?.iter().map(|model| model.param_count()).collect();
//! assert_eq!(sizes[1] - sizes[0], 2 * 2 * 128 * 64);
//! # Ok::<(), tokenformer::error::Error>(())
//! ```
//!
//! `examples/` trains such a run, grows a checkpoint, and adds an operator.
//!
//! What is public, and for whom (all else is the crate's own, and the lint `unreachable_pub` keeps it so):
//!
//! | module | for |
//! |---|---|
//! | [`config`], [`data`], [`train`], [`checkpoint`], [`error`] | a program that trains, grows, prunes or reads checkpoints |
//! | [`runtime::device`], [`gpu::adapter`] | choosing and opening a GPU |
//! | [`runtime::generate`], [`model::sample`] | writing text with a model |
//! | [`graph`], [`kernel`], [`ops`], [`model`], [`runtime`] | an operator, a kernel or a model of one's own; planning memory |
//! | [`study`], [`tune`], [`gpu`], [`rng`], [`mod@array`], [`cache`] | the tests and benchmarks of this crate; these may change |
//! | [`mod@exchange`] | the tests of this crate, which give it hostile files; this may change |
//! | [`commands::cli`] | the program itself |

#![warn(unreachable_pub)]

pub mod array;
pub(crate) mod bench;
pub mod cache;
pub mod checkpoint;
pub mod commands;
pub mod config;
pub mod console;
pub mod data;
pub mod error;
pub mod exchange;
pub mod gpu;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod ops;
pub(crate) mod report;
pub mod rng;
pub mod runtime;
pub mod study;
pub mod train;
pub mod tune;
