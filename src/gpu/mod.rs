//! The only room that knows wgpu: adapters, the device, buffers, pipelines, dispatches.

pub mod adapter;
pub mod choices;
pub mod device;
pub mod engine;
pub mod kernel;
pub mod listing;
pub mod shader;
