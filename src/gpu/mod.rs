//! The only module that knows wgpu: adapters, the device, buffers, pipelines, dispatches.

pub mod adapter;
pub mod block;
pub mod budget;
mod clock_speed;
pub mod clocks;
pub mod custom;
pub mod deferred_read;
pub mod device;
pub(crate) mod download;
pub mod engine;
pub mod facts;
mod fault;
mod heartbeat;
pub mod listing;
pub mod module;
mod names;
mod peak;
mod pipelines;
pub mod program;
mod readback;
#[cfg(test)]
pub(crate) mod recording;
pub mod submission;
pub mod timing;
