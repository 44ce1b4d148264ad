//! Which weights of a checkpoint a command uses: their moving average, or those that training left.

use crate::config::RunConfig;
use crate::model::init::Tensors;
use crate::train::growth::HostModel;
use clap::Args;

/// Whether the moving average of the weights is passed over.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct WeightsArgs {
    /// Take the weights that training left, not their moving average, where a checkpoint has one (train.ema_decay).
    #[arg(long)]
    raw_weights: bool,
}

/// Which weights were taken of a checkpoint that has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Averaged,
    Raw,
}

impl WeightsArgs {
    /// The weights of `host` to use, and which they are where there is a choice.
    pub(super) fn of(self, host: &HostModel) -> (&Tensors, Option<Taken>) {
        match self.taken(!host.averages.is_empty()) {
            Some(Taken::Averaged) => (&host.averages, Some(Taken::Averaged)),
            other => (&host.params, other),
        }
    }

    /// Which weights are used of a checkpoint that has averages, or has not.
    pub(super) fn taken(self, has_averages: bool) -> Option<Taken> {
        has_averages.then_some(if self.raw_weights { Taken::Raw } else { Taken::Averaged })
    }
}

impl Taken {
    /// In words.
    pub(super) fn said(self, config: &RunConfig) -> String {
        match self {
            Self::Averaged => format!("averaged (ema_decay {})", config.train.ema_decay),
            Self::Raw => "raw, not averaged".to_owned(),
        }
    }

    /// In an answer as JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Averaged => "averaged",
            Self::Raw => "raw",
        }
    }
}
