//! The only room that knows wgpu: adapters, the device, buffers, pipelines, dispatches.

pub mod adapter;
pub mod block;
mod clocks;
pub mod custom;
pub mod device;
pub mod engine;
pub mod facts;
pub mod flight;
pub mod listing;
pub mod module;
pub mod program;
pub mod reading;
pub mod timing;
