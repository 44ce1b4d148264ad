//! Which kernel computes which matrix product on a device, and which schedule its attentions have.
//!
//! A sum is never cut without a measurement that says so.

use super::attention_schedule::AttentionSchedule;
use super::candidate::Candidate;
use super::product::{ProductKind, ShapeClass};
use super::target::Target;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which candidate computes which product. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KernelTable(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    target: Target,
    forced: Option<Candidate>,
    attention: Option<AttentionSchedule>,
    table: BTreeMap<ShapeClass, Candidate>,
    uncut: BTreeMap<ShapeClass, Candidate>,
}

impl KernelTable {
    /// The default candidates of a device.
    pub fn defaults(target: Target) -> Self {
        Self::nothing_measured(target, None)
    }

    /// The default candidates, or the one that `TOKENFORMER_MATMUL` names, and the schedule that `TOKENFORMER_ATTENTION`
    /// names. `adapter` is its name, for messages.
    ///
    /// # Errors
    /// No such candidate or schedule, or one that needs what the device does not have.
    pub fn from_environment(target: Target, adapter: &str) -> Result<Self> {
        let attention = AttentionSchedule::from_environment(&target)?;
        let named = std::env::var("TOKENFORMER_MATMUL").ok().filter(|name| !name.is_empty());
        let Some(name) = named else { return Ok(Self::defaults(target).with_attention(attention)) };
        let candidate: Candidate = name.parse()?;
        if !candidate.fits(&target) {
            return Err(Error::device(format!(
                "TOKENFORMER_MATMUL={name} needs what \"{adapter}\" does not have; `tokenformer bench matmul` lists what it \
                 can run"
            )));
        }
        Ok(Self::forced(target, candidate).with_attention(attention))
    }

    /// One candidate for everything: for tests and benchmarks.
    pub fn forced(target: Target, candidate: Candidate) -> Self {
        Self::nothing_measured(target, Some(candidate))
    }

    fn nothing_measured(target: Target, forced: Option<Candidate>) -> Self {
        Self(Arc::new(Inner { target, forced, attention: None, table: BTreeMap::new(), uncut: BTreeMap::new() }))
    }

    /// The same with what was measured; classes not in `table` get the default candidate.
    pub(crate) fn with_table(&self, table: BTreeMap<ShapeClass, Candidate>) -> Self {
        Self(Arc::new(Inner { table, ..(*self.0).clone() }))
    }

    /// The same with what was measured for products whose sums must not be cut, of classes for which `table` names a
    /// candidate that cuts them.
    pub(crate) fn with_uncut(&self, uncut: BTreeMap<ShapeClass, Candidate>) -> Self {
        Self(Arc::new(Inner { uncut, ..(*self.0).clone() }))
    }

    /// The same with one schedule for every attention that can take it; `None`: the default ones.
    pub fn with_attention(&self, attention: Option<AttentionSchedule>) -> Self {
        Self(Arc::new(Inner { attention, ..(*self.0).clone() }))
    }

    /// The schedule that every attention should have that can take it.
    pub fn attention(&self) -> Option<AttentionSchedule> {
        self.0.attention
    }

    /// What the device can do.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// What was measured.
    pub fn table(&self) -> &BTreeMap<ShapeClass, Candidate> {
        &self.0.table
    }

    /// Whether one candidate computes everything.
    pub(crate) fn is_forced(&self) -> bool {
        self.0.forced.is_some()
    }

    /// What was measured, as names: for files.
    pub fn names(&self) -> BTreeMap<String, String> {
        self.0.table.iter().map(|(class, candidate)| (class.to_string(), candidate.to_string())).collect()
    }

    /// The candidate for one product.
    pub fn pick(&self, product: ProductKind) -> Candidate {
        let Inner { target, forced, table, .. } = &*self.0;
        let measured = || table.get(&ShapeClass::of(product)).copied();
        let chosen = forced.or_else(measured).filter(|candidate| candidate.multiplies(product.half));
        chosen.unwrap_or_else(|| target.default_candidate(product))
    }

    /// The same for a product whose sums must not be cut. Of those that do not cut them all give the same bits.
    pub(crate) fn pick_uncut(&self, product: ProductKind) -> Candidate {
        let picked = self.pick(product);
        let measured = || self.0.uncut.get(&ShapeClass::of(product)).copied().filter(|_| !self.is_forced());
        let same_bits =
            |other: &Candidate| other.multiplies(product.half) && other.chunk() == 0 && other.order() == picked.order();
        if picked.chunk() == 0 { picked } else { measured().filter(same_bits).unwrap_or_else(|| picked.uncut()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product::Layout;
    use super::*;

    #[test]
    fn classes_round_up_and_unknown_classes_get_the_default_candidate() {
        let product = |layout, size| ProductKind { layout, size, half: false, pair: false };
        let class = ShapeClass::of(product(Layout::NT, [1000, 512, 1]));
        assert_eq!(class.to_string(), "NT 1024x512x1");
        assert_eq!("NT 1024x512x1".parse::<ShapeClass>().unwrap(), class);
        assert!("NT 1000x512x1".parse::<ShapeClass>().is_err() && "NT 8x8".parse::<ShapeClass>().is_err());
        let pair = ShapeClass { half: true, pair: true, ..class };
        assert_eq!(pair.to_string(), "NT 1024x512x1 f16 pair");
        assert_eq!(pair.to_string().parse::<ShapeClass>().unwrap(), pair);
        assert!("NT 1024x512x1 pair f16".parse::<ShapeClass>().is_err());
        let kernels = KernelTable::defaults(Target::WEBGPU);
        let other = Candidate::Tiles { block: [32; 2], depth: 8, thread: [4; 2], chunk: 0 };
        let kernels = kernels.with_table([(class, other)].into());
        assert_eq!(kernels.pick(product(Layout::NT, [600, 300, 1])), other);
        let unknown = product(Layout::NN, [600, 300, 1]);
        assert_eq!(kernels.pick(unknown), Target::WEBGPU.default_candidate(unknown));
    }

    #[test]
    fn sums_that_must_not_be_cut_have_a_candidate_of_their_own() {
        let product = ProductKind { layout: Layout::NN, size: [64, 64, 4096], half: false, pair: false };
        let class = ShapeClass::of(product);
        let small = Candidate::Tiles { block: [32; 2], depth: 8, thread: [4; 2], chunk: 0 };
        let cut = Candidate::Tiles { block: [128, 64], depth: 8, thread: [8; 2], chunk: 512 };
        let kernels = KernelTable::defaults(Target::WEBGPU).with_table([(class, cut)].into());
        assert_eq!([kernels.pick(product), kernels.pick_uncut(product)], [cut, cut.uncut()]);
        let kernels = kernels.with_uncut([(class, small)].into());
        assert_eq!([kernels.pick(product), kernels.pick_uncut(product)], [cut, small]);
        // Where the table has no sums that are cut, it is what counts.
        let uncut = kernels.with_table([(class, cut.uncut())].into());
        assert_eq!(uncut.pick_uncut(product), cut.uncut());
        // Other bits.
        let wrong = kernels.with_uncut([(class, small.chunked(512))].into());
        assert_eq!(wrong.pick_uncut(product), cut.uncut());
    }
}
