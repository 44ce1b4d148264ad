//! Where a plan and a device meet: an open device and its kernels, memory for what was planned, generation, and the checks
//! of operators on a device. And who else takes part in a run: [`distributed`].

pub mod check;
pub mod device;
pub(crate) mod distributed;
pub mod generate;
pub mod memory;
pub mod overflow;
