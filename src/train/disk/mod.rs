//! A run on disk: its directory, its metrics, its checkpoints, and the start and the data that they name.

pub(crate) mod capture;
pub(crate) mod dataset;
pub mod directory;
pub(crate) mod lines;
pub(crate) mod meta;
pub mod metrics;
pub mod settings;
pub(crate) mod start;
pub(crate) mod tensorboard;

pub use dataset::{dataset, sample_prompt};
pub(crate) use dataset::{dataset_of_trained, dataset_to_measure};
pub use start::Start;
pub(crate) use start::described;
