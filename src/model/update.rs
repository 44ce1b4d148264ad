//! What happens after the gradients of a step, recorded: their norm, the optimizer's update, and the moving averages of the
//! parameters.

use super::graphs::{NORM_PARTS, STATS_NAME, Shapes, UPDATE};
use super::muon::{batches, hidden_matrices};
use crate::config::{ModelConfig, TrainConfig};
use crate::error::Result;
use crate::graph::pack::{Packed, Piece};
use crate::graph::{Class, Graph, Tensor, average_name, grad_name, moment_names};
use crate::kernel::{Dtype, KernelTable};
use crate::ops::adamw::{Segment, Trained, UPDATE_WORDS, adamw};
use crate::ops::average::average;
use crate::ops::grad_norm::{self, grad_norm};
use crate::ops::muon::{Rule, Storages, muon};
use crate::ops::stats::STATS;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Where the gradients of all that trains and the parameters lie, and which elements of them are updated how.
struct Updated {
    grads: Packed,
    parameters: Packed,
    /// By the numbers of their storages, and of that of their moments.
    segments: Vec<([usize; 3], Vec<Segment>)>,
}

impl Updated {
    /// Of all that is `trained` and has `segments`. `moments` says where moments lie, if not as the gradients do.
    fn of(
        g: &mut Graph,
        config: &ModelConfig,
        trained: &Shapes,
        segments: &BTreeMap<String, Vec<Segment>>,
        moments: Option<&Packed>,
    ) -> Result<Self> {
        let parameters = g.pack(&config.param_shapes(), Class::Parameter, str::to_owned)?;
        let grads = g.pack(trained, Class::Gradient, grad_name)?;
        let of_name: BTreeMap<&str, &Piece> =
            parameters.pieces.iter().map(|piece| (piece.name.as_str(), piece)).collect();
        let of_moments: BTreeMap<&str, &Piece> =
            moments.iter().flat_map(|packed| &packed.pieces).map(|piece| (piece.name.as_str(), piece)).collect();
        let mut all = Vec::new();
        let pairs = (0..grads.storages.len()).flat_map(|i| (0..parameters.storages.len()).map(move |j| (i, j)));
        for (i, j) in pairs {
            let (grad, parameter) = (grads.storages[i], parameters.storages[j]);
            let of_pair = moments.map_or(i..i + 1, |packed| 0..packed.storages.len());
            for k in of_pair {
                let inside = grads.pieces.iter().filter_map(|piece| {
                    let whole = of_name.get(piece.name.as_str())?;
                    let (of_grad, of_parameter) = (g.view_of(piece.tensor)?, g.view_of(whole.tensor)?);
                    let of_moment = match moments {
                        None => of_grad,
                        Some(packed) => {
                            let view = g.view_of(of_moments.get(piece.name.as_str())?.tensor)?;
                            Some(view).filter(|view| view.storage == packed.storages[k])?
                        }
                    };
                    let both = of_grad.storage == grad && of_parameter.storage == parameter;
                    let elements = g.shape(whole.tensor).iter().product::<usize>();
                    both.then(|| {
                        let of_piece = whole.first..whole.first + elements;
                        let segments = segments.get(&piece.of).map_or(&[][..], Vec::as_slice);
                        (segments, of_piece, [of_parameter.offset, of_grad.offset, of_moment.offset])
                    })
                });
                let placed = inside.flat_map(|(segments, of_piece, [first, state, moment])| {
                    let of_piece = segments.iter().filter_map(move |segment| segment.within(&of_piece));
                    of_piece.map(move |s| Segment {
                        first: s.first + first,
                        state: s.state + state,
                        moment: s.moment + moment,
                        ..s
                    })
                });
                all.push(([i, j, k], joined(placed)));
            }
        }
        Ok(Self { grads, parameters, segments: all })
    }
}

/// A share of all gradients, for which a process keeps the optimizer's state: ranges of their storages, one storage after the
/// other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shard(pub Vec<Range<usize>>);

impl Shard {
    /// The name of what belongs to one of the ranges.
    pub(crate) fn name(range: usize) -> String {
        format!("shard {range}")
    }

    /// The ranges of one storage that begins at `start` and has so many elements, by number.
    fn of_storage(&self, start: usize, elements: usize) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        self.0.iter().enumerate().filter_map(move |(i, range)| {
            let (first, end) = (range.start.max(start), range.end.min(start + elements));
            (first < end).then(|| (i, first - start..end - start, first - range.start))
        })
    }
}

/// What of all that is `trained` AdamW updates: all of it, or what Muon leaves to it. That has a second moment.
pub fn updated_by_adamw(config: &ModelConfig, train: &TrainConfig, trained: &Shapes) -> Vec<(String, Vec<usize>)> {
    let hidden = hidden_matrices(config, train);
    trained.iter().filter(|(name, _)| !hidden.contains(name)).cloned().collect()
}

/// Name of the momentum of matrices that Muon updates: it is their first moment. Storages have names of their own.
fn momentum_name(name: &str) -> String {
    let first = moment_names(name).0;
    if name.starts_with("parameters ") { format!("muon {first}") } else { first }
}

/// Gradient norm, clipping and the optimizer over all that is `trained`, as for [`super::graphs::training`]; `segments` gives its cohorts, and
/// `precision` that of the copies of parameters, which change with them. With a `shard` only that is updated, and the blocks
/// of the norm are there, see [`norm`].
pub fn update(
    config: &ModelConfig,
    train: &TrainConfig,
    trained: &Shapes,
    segments: &BTreeMap<String, Vec<Segment>>,
    precision: Dtype,
    shard: Option<&Shard>,
    kernels: &KernelTable,
) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    g.set_precision(precision);
    let stats = g.state(STATS_NAME, &[STATS]);
    let scalars = g.state(UPDATE, &[UPDATE_WORDS]);
    let by_adamw = updated_by_adamw(config, train, trained);
    let of_shard = shard.map(|Shard(ranges)| {
        ranges.iter().enumerate().map(|(i, range)| (Shard::name(i), vec![range.len()])).collect::<Vec<_>>()
    });
    let of_moments = of_shard.as_deref().unwrap_or(&by_adamw);
    let m = g.pack(of_moments, Class::Moment, |name| moment_names(name).0)?;
    let v = g.pack(of_moments, Class::Moment, |name| moment_names(name).1)?;
    let apart = (by_adamw.len() < trained.len()).then_some(&m);
    let all_segments = segments;
    let Updated { grads, parameters, segments } = Updated::of(&mut g, config, trained, segments, apart)?;
    let copies: Vec<Option<Tensor>> =
        parameters.storages.iter().map(|&p| (precision != Dtype::F32).then(|| g.weight_copy(p))).collect();
    match shard {
        None => grad_norm(&mut g, &grads.sums, stats, train.grad_clip)?,
        Some(_) => {
            let parts = g.state(NORM_PARTS, &[grad_norm::parts_of(&grads.sums), 2]);
            grad_norm::finish_norm(&mut g, parts, stats, train.grad_clip)?;
        }
    }
    for ([i, j, k], segments) in &segments {
        let (grad, parameter, copy) = (grads.storages[*i], parameters.storages[*j], copies[*j]);
        let Some(shard) = shard else {
            let trained = Trained { parameter, grad, m: m.storages[*k], v: v.storages[*k], copy };
            adamw(&mut g, scalars, stats, trained, segments)?;
            continue;
        };
        let length = |storage: &Tensor| g.shape(*storage).iter().product::<usize>();
        let start: usize = grads.storages[..*i].iter().map(length).sum();
        let elements = length(&grad);
        for (k, (&m_storage, &v_storage)) in m.storages.iter().zip(&v.storages).enumerate() {
            let ranges = shard.of_storage(start, elements).filter_map(|(number, range, before)| {
                let view = g.view_of(m.pieces.get(number)?.tensor)?;
                (view.storage == m.storages[k]).then_some((range, view.offset + before))
            });
            let ranges: Vec<(Range<usize>, usize)> = ranges.collect();
            let owned =
                ranges.iter().flat_map(|(range, moment)| segments.iter().filter_map(|s| s.owned(range, *moment)));
            let owned: Vec<Segment> = owned.collect();
            let trained = Trained { parameter, grad, m: m_storage, v: v_storage, copy };
            adamw(&mut g, scalars, stats, trained, &owned)?;
        }
    }
    let names = by_adamw.iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let by_muon: Vec<_> = trained.iter().filter(|(name, _)| !names.contains(name)).cloned().collect();
    let momentum = g.pack(&by_muon, Class::Moment, momentum_name)?;
    for batch in batches(&g, &by_muon, all_segments, [&grads, &parameters, &momentum]) {
        let [i, j, k] = batch.storages;
        let (grad, parameter, copy) = (grads.storages[i], parameters.storages[j], copies[j]);
        let of = Storages { parameter, grad, momentum: momentum.storages[k], copy };
        let adjust = train.muon_adjust.of(batch.shape);
        let rule = Rule { momentum: train.muon_momentum, adjust, rate: train.muon_rate() };
        muon(&mut g, [scalars, stats], of, batch.shape, &batch.matrices, rule)?;
    }
    Ok(g)
}

/// The blocks of the gradient norm, in [`NORM_PARTS`], for ranks that each have a share of the gradients.
pub fn norm(trained: &Shapes, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    let grads = g.pack(trained, Class::Gradient, grad_name)?;
    let parts = g.state(NORM_PARTS, &[grad_norm::parts_of(&grads.sums), 2]);
    grad_norm::square_sums(&mut g, &grads.sums, parts)?;
    Ok(g)
}

/// Where what a shard updates lies among the parameters: names of their storages and ranges of elements, in order.
pub(crate) fn updated_parameters(
    config: &ModelConfig,
    trained: &Shapes,
    segments: &BTreeMap<String, Vec<Segment>>,
    shard: &Shard,
    kernels: &KernelTable,
) -> Result<Vec<(String, Range<usize>)>> {
    let mut g = Graph::forward_only(kernels);
    let Updated { grads, parameters, segments } = Updated::of(&mut g, config, trained, segments, None)?;
    let length = |storage: &Tensor| g.shape(*storage).iter().product::<usize>();
    let mut found = Vec::new();
    for ([i, j, _], segments) in &segments {
        let start: usize = grads.storages[..*i].iter().map(length).sum();
        let name = &g.tensors()[parameters.storages[*j].index()].name;
        for (_, range, _) in shard.of_storage(start, length(&grads.storages[*i])) {
            let owned = segments.iter().filter_map(|segment| segment.owned(&range, 0));
            found.extend(owned.map(|s| (name.clone(), s.first..s.first + s.n)));
        }
    }
    Ok(found)
}

/// Neighbours that are updated alike as one, over the gaps between packed tensors: those hold zeros and keep them.
fn joined(segments: impl Iterator<Item = Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for next in segments {
        match joined.last_mut() {
            Some(last)
                if (last.cohort, last.decay) == (next.cohort, next.decay)
                    && next.first - last.first == next.state - last.state
                    && next.state - last.state == next.moment - last.moment =>
            {
                last.n = next.first + next.n - last.first
            }
            _ => joined.push(next),
        }
    }
    joined
}

/// Moves the averages of all parameters towards the parameters, after an update.
pub fn averages(config: &ModelConfig, kernels: &KernelTable) -> Result<Graph> {
    let mut g = Graph::forward_only(kernels);
    let (stats, scalars) = (g.state(STATS_NAME, &[STATS]), g.state(UPDATE, &[UPDATE_WORDS]));
    let parameters = g.pack(&config.param_shapes(), Class::Parameter, str::to_owned)?;
    let averages = g.pack(&config.param_shapes(), Class::Average, average_name)?;
    for (&parameter, &of_it) in parameters.storages.iter().zip(&averages.storages) {
        average(&mut g, scalars, stats, parameter, of_it)?;
    }
    Ok(g)
}
