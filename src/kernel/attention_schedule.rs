//! The designs that an attention may run in, by name.
//!
//! Which of them a device and a head width can take is decided where they are generated, in `ops/attention`.

use super::dtype::Dtype;
use super::target::Target;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A design of the attention kernels. Each sums in an order of its own: their bits differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttentionSchedule {
    /// Workgroups of 8 lanes, as wide as the SIMD units that software drivers run on; takes every head width up to 128.
    Software,
    /// A row to neighbouring lanes, which hold it in registers and compute in f32.
    Lanes,
    /// Cooperative matrices of f16.
    Cooperative,
}

impl AttentionSchedule {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Software, Self::Lanes, Self::Cooperative];

    /// The schedule that `TOKENFORMER_ATTENTION` names for all attentions that can take it, if it names one.
    ///
    /// # Errors
    /// No such schedule, or one that needs what the device does not have.
    pub fn from_environment(target: &Target) -> Result<Option<Self>> {
        let Some(name) = std::env::var("TOKENFORMER_ATTENTION").ok().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let schedule = name.parse()?;
        if schedule == Self::Cooperative && target.fragments.best(Dtype::F16).is_none() {
            return Err(Error::device(
                "TOKENFORMER_ATTENTION=cooperative needs matrix units that multiply f16, which this device does not \
                 offer; use lanes, or unset it",
            ));
        }
        Ok(Some(schedule))
    }
}

impl fmt::Display for AttentionSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::Lanes => "lanes",
            Self::Cooperative => "cooperative",
        })
    }
}

impl FromStr for AttentionSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|schedule| schedule.to_string() == text).ok_or_else(|| {
            Error::usage(format!(
                "TOKENFORMER_ATTENTION is \"{text}\", which is no schedule of attention: use software, lanes or \
                 cooperative, or unset it"
            ))
        })
    }
}
