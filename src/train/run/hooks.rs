//! Moments of a run at which tests make something go wrong. A run of the program has [`NoHooks`].

use crate::error::Result;
use crate::train::trainer::Trainer;

/// Called at these moments; an error ends the run there.
pub(crate) trait Hooks {
    /// Before a run that starts at `step` claims its directory.
    fn before_claim(&self, _step: u64) -> Result<()> {
        Ok(())
    }

    /// Before anything of `step` is submitted.
    fn before_step(&self, _trainer: &Trainer, _step: u64) -> Result<()> {
        Ok(())
    }

    /// Between the gradients of `step` and its update.
    fn before_update(&self, _trainer: &Trainer, _step: u64) -> Result<()> {
        Ok(())
    }
}

/// Nothing goes wrong.
pub(crate) struct NoHooks;

impl Hooks for NoHooks {}
