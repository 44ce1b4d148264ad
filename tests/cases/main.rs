//! Faults that comparable tools were reported for, each with its kind: what is given goes wrong silently there, and ends in the
//! right value or one clear sentence here. Every case runs the real program in a fresh folder.
//!
//! A machine without an adapter fails these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod budget;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod disk;
mod export;
mod import;
mod interface;
mod neox;
mod optimizers;
mod prepare;
mod program;
#[cfg(all(feature = "mpi", unix))]
mod ranks;
mod report;
mod scripts;
mod sets;
mod snapshot;
mod tensorboard;
mod terminal;
mod tokens;
