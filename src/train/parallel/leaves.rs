//! The leaves of an update on one device: where the sums of earlier ones lie while the next is computed, and how they are
//! added up.

use super::Share;
use super::layout::Layout;
use super::tree::{LeafStep, Node, Schedule};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::gpu::engine::{Block, Engine, Program};
use crate::graph::plan::Plan;
use crate::graph::{Class, Graph, grad_name};
use crate::kernel::KernelTable;
use crate::model::graphs::{BatchShape, STATS_NAME};
use crate::ops::leaves::add_leaf;
use crate::ops::stats::STATS;
use crate::runtime::memory::Memory;
use std::ops::Range;

/// Plans of the sums, and what they go by.
pub(crate) struct LeafPlans {
    /// For each place the addition of what lies in it to what was computed, bucket by bucket and at last of the loss.
    pub(crate) sums: Vec<Plan>,
    /// Which dispatches of them are about which bucket; the last about the loss.
    dispatches: Vec<Range<usize>>,
    /// Where gradients lie.
    pub(crate) layout: Layout,
    /// What travels at once.
    pub(crate) buckets: Vec<Range<usize>>,
    schedule: Schedule,
    micro_batches: usize,
}

/// The name of what lies in a place.
fn in_place(place: usize, what: &str) -> String {
    format!("leaf sum {place}: {what}")
}

impl LeafPlans {
    /// Of what is `trained`, for the leaves of `share`; each plan is made by `make`.
    ///
    /// # Errors
    /// Leaves that cannot be shared out evenly; what a plan may refuse.
    pub(crate) fn new(
        train: &TrainConfig,
        trained: &[(String, Vec<usize>)],
        shape: &BatchShape,
        share: Share,
        kernels: &KernelTable,
        make: &impl Fn(&Graph) -> Result<Plan>,
    ) -> Result<Self> {
        let leaves = train.gradient_leaves;
        let count = leaves / share.ranks.max(1);
        if count * share.ranks != leaves || !shape.grad_accum.is_multiple_of(leaves) {
            return Err(Error::usage(format!(
                "gradient_leaves {leaves} cannot be shared out among {} ranks: use a multiple of {}",
                share.ranks, share.ranks
            )));
        }
        let layout = Layout::of(trained, kernels)?;
        let buckets = layout.buckets();
        let schedule = Schedule::of(share.rank * count, count, leaves);
        let mut dispatches = Vec::new();
        let mut sums = Vec::with_capacity(schedule.places());
        for place in 0..schedule.places() {
            let mut g = Graph::forward_only(kernels);
            let totals = g.pack(trained, Class::Gradient, grad_name)?.storages;
            let storages = layout.storages.iter();
            let saved: Vec<_> = storages.map(|(name, n)| g.state(&in_place(place, name), &[*n])).collect();
            dispatches.clear();
            for bucket in &buckets {
                let first = g.calls().len();
                for stretch in layout.stretches(bucket) {
                    add_leaf(&mut g, saved[stretch.storage], totals[stretch.storage], stretch.range)?;
                }
                dispatches.push(first..g.calls().len());
            }
            let stats = g.state(STATS_NAME, &[STATS]);
            let saved = g.state(&in_place(place, STATS_NAME), &[STATS]);
            // The loss alone; it comes first.
            add_leaf(&mut g, saved, stats, 0..1)?;
            dispatches.push(g.calls().len() - 1..g.calls().len());
            sums.push(make(&g)?);
        }
        let micro_batches = shape.grad_accum / leaves;
        Ok(Self { sums, dispatches, layout, buckets, schedule, micro_batches })
    }
}

/// The leaves of a process, with their memory.
pub(crate) struct Leaves {
    schedule: Schedule,
    /// Of a leaf.
    pub(crate) micro_batches: usize,
    sums: Vec<Program>,
    dispatches: Vec<Range<usize>>,
    /// What is computed: gradients in the order of the layout's storages, and at last the statistics.
    pub(crate) computed: Vec<Block>,
    /// What lies in each place, in the same order.
    places: Vec<Vec<Block>>,
}

impl Leaves {
    /// With the programs that `memory` has made of [`LeafPlans::sums`].
    ///
    /// # Errors
    /// Memory of other plans, which is a defect.
    pub(crate) fn new(plans: &LeafPlans, memory: &Memory, sums: Vec<Program>) -> Result<Self> {
        let storages = || plans.layout.storages.iter().map(|(name, _)| name.as_str());
        let named = |name: String| memory.named(&name).cloned();
        let computed = storages().map(|name| named(grad_name(name))).chain([named(STATS_NAME.to_owned())]);
        let in_place =
            |place| storages().chain([STATS_NAME]).map(|name| named(in_place(place, name))).collect::<Result<Vec<_>>>();
        Ok(Self {
            schedule: plans.schedule.clone(),
            micro_batches: plans.micro_batches,
            dispatches: plans.dispatches.clone(),
            computed: computed.collect::<Result<_>>()?,
            places: (0..sums.len()).map(in_place).collect::<Result<_>>()?,
            sums,
        })
    }

    /// What is done about the leaf of this number.
    fn step(&self, leaf: usize) -> Option<LeafStep> {
        self.schedule.steps.get(leaf).copied()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.schedule.steps.len()
    }

    /// The sums that are left in the end.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.schedule.nodes
    }

    /// Puts what was computed in its place, before the leaf of this number takes its room.
    pub(crate) fn save(&self, engine: &Engine, leaf: usize) -> Result<()> {
        let Some(place) = self.step(leaf).and_then(|step| self.places.get(step.save_to?)) else { return Ok(()) };
        // In a submission of its own: the statistics of the next leaf are written before the next one.
        engine.copy(self.computed.iter().zip(place))
    }

    /// The programs that add to the leaf of this number what lies in places, in order.
    pub(crate) fn sums(&self, leaf: usize) -> impl Iterator<Item = &Program> {
        self.step(leaf).into_iter().flat_map(LeafStep::added).filter_map(|place| self.sums.get(place))
    }

    /// What adds up a bucket of the last leaf, or the loss where it is past all buckets: dispatches of programs, in order.
    pub(super) fn sums_of(&self, bucket: usize) -> impl Iterator<Item = (&Program, Range<usize>)> {
        let dispatches = self.dispatches.get(bucket).cloned().unwrap_or(0..0);
        self.sums(self.count().wrapping_sub(1)).map(move |sum| (sum, dispatches.clone()))
    }

    /// Where each of [`Self::nodes`] lies, as [`Self::computed`].
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[Block]> {
        let nodes = self.schedule.nodes.len();
        self.places.iter().take(nodes.saturating_sub(1)).chain([&self.computed]).map(Vec::as_slice)
    }
}
