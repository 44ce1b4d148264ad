//! Where a plan and a device meet: memory for what was planned, and programs that run in it.

pub mod check;
pub mod device;
pub mod generate;
pub mod memory;
pub mod overflow;
