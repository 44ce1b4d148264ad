//! A run on disk: its directory, its metrics, its checkpoints, and the start and the data that they name.

pub(in crate::train) mod capture;
pub(in crate::train) mod dataset;
pub mod directory;
pub(in crate::train) mod meta;
pub mod metrics;
pub(in crate::train) mod start;

pub use dataset::{dataset, dataset_of_trained, sample_prompt};
pub use start::Start;
