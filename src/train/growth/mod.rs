//! Growing and pruning a model that is being trained: what becomes of its parameters, moments and cohorts, and what is
//! said of it in its lineage. What each policy makes of a parameter is [`crate::model::grow`]'s.

pub mod cohorts;
mod host;
mod import;
pub(crate) mod on_device;
pub(crate) mod plateau;
pub mod prune;
mod record;

pub use host::HostModel;
pub use import::Import;
pub use record::{Change, GrowthRecord, PruneRules, Rules, Shape, max_change};
