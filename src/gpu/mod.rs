//! The only room that knows wgpu: adapters, the device, buffers, pipelines, dispatches.

pub mod adapter;
pub mod block;
pub mod choices;
mod clocks;
pub mod custom;
mod defaults;
pub mod device;
pub mod engine;
pub mod facts;
pub mod flight;
pub mod fragments;
pub mod kernel;
pub mod listing;
pub mod module;
mod names;
pub mod program;
pub mod reading;
pub mod schedule;
pub mod shader;
pub mod timing;
