//! One parameter of a grown model: what a policy makes.

use crate::array::HostTensor;
use crate::config::{ModelConfig, Parameter, ResolvedGrowth};
use crate::model::init::{self, Tensors};
use crate::rng::{Rng, Stream};

/// A growth of a model's parameters.
pub(super) struct Growth<'a> {
    pub(super) before: &'a ModelConfig,
    pub(super) after: &'a ModelConfig,
    /// Of the model before.
    pub(super) params: &'a Tensors,
    pub(super) rules: &'a ResolvedGrowth,
    /// Decides what is random.
    pub(super) seed: u64,
}

/// One parameter of the grown model, to be made.
pub(super) struct Part<'a> {
    pub(super) growth: &'a Growth<'a>,
    pub(super) parameter: Parameter,
    /// The same parameter before; none in a new layer.
    pub(super) old: Option<&'a HostTensor>,
}

impl Part<'_> {
    /// Random numbers of this parameter alone.
    pub(super) fn rng(&self) -> Rng {
        self.rng_of(&self.parameter.name)
    }

    /// Random numbers that all parts which ask for `name` have in common.
    pub(super) fn rng_of(&self, name: &str) -> Rng {
        Rng::named(self.growth.seed, Stream::Growth, name)
    }

    /// `n` values as at the creation of a model.
    pub(super) fn initial(&self, n: usize) -> Vec<f32> {
        init::values(self.growth.after, self.parameter.role, n, self.rng())
    }

    /// The old values, then what `fill` makes of the number that are missing: new rows.
    pub(super) fn appended(self, fill: impl FnOnce(&Self, usize) -> Vec<f32>) -> HostTensor {
        let mut data = self.old.map(|tensor| tensor.data.clone()).unwrap_or_default();
        let missing = self.parameter.shape.iter().product::<usize>().saturating_sub(data.len());
        data.extend(fill(&self, missing));
        self.filled(data)
    }

    /// The old values, and zeros in new rows and columns.
    pub(super) fn padded(self) -> HostTensor {
        padded(self.old, &self.parameter.shape)
    }

    /// These values in the new shape.
    pub(super) fn filled(self, data: Vec<f32>) -> HostTensor {
        HostTensor { shape: self.parameter.shape, data }
    }
}

/// Values of a row.
pub(in crate::model) fn width(shape: &[usize]) -> usize {
    shape.iter().skip(1).product::<usize>().max(1)
}

/// The old values, and zeros in new rows and columns.
pub(super) fn padded(old: Option<&HostTensor>, shape: &[usize]) -> HostTensor {
    let mut new = HostTensor::zeros(shape);
    if let Some(old) = old {
        let rows = new.data.chunks_mut(width(shape)).zip(old.data.chunks(width(&old.shape)));
        rows.for_each(|(new, old)| new.iter_mut().zip(old).for_each(|(new, old)| *new = *old));
    }
    new
}
