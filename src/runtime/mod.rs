//! Where a plan and a device meet: an open device and its kernels, memory for what was planned, generation, and the checks
//! of operators on a device.

pub mod check;
pub mod device;
pub mod generate;
pub mod memory;
pub mod overflow;
