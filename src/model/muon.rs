//! Which matrices Muon updates together: those of one shape whose gradients, momentum and parameters lie alike.
//!
//! Of a matrix of which only some rows train, such as tokens that a growth added with `train = "new"`, these rows are a matrix
//! of their own: what is frozen has no share in what is made orthogonal. Rows of several ages that all train are one matrix,
//! and may have learning rates of their own.

use crate::config::{ModelConfig, Optimizer, TrainConfig};
use crate::graph::pack::Packed;
use crate::graph::{Graph, Tensor};
use crate::ops::adamw::Segment;
use crate::ops::muon::MAX_MATRICES;
use std::collections::{BTreeMap, BTreeSet};

/// Most elements of a batch, but for a single matrix: 64 MiB, of which its work takes two.
const MOST_ELEMENTS: usize = 1 << 24;

/// The parameters that Muon updates, by name; none without it.
pub(crate) fn hidden_matrices(config: &ModelConfig, train: &TrainConfig) -> BTreeSet<String> {
    let hidden = config.parameters().into_iter().filter(|parameter| parameter.role.is_hidden_matrix());
    if train.optimizer == Optimizer::Muon { hidden.map(|parameter| parameter.name).collect() } else { BTreeSet::new() }
}

/// Rows and columns of a matrix, and the numbers of its storages among those of gradients, parameters and momentum.
type Kind = ([usize; 2], [usize; 3]);

/// Matrices that are updated at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Rows and columns.
    pub(super) shape: [usize; 2],
    /// The numbers of their storages among those of gradients, parameters and momentum.
    pub(super) storages: [usize; 3],
    /// Each as the segments of its rows by cohort, in elements of these storages.
    pub(super) matrices: Vec<Vec<Segment>>,
}

/// The batches of the matrices `names`, with the rows of each by age as `segments` gives them; `packed` has gradients,
/// parameters and momentum.
pub(super) fn batches(
    g: &Graph,
    names: &[(String, Vec<usize>)],
    segments: &BTreeMap<String, Vec<Segment>>,
    packed: [&Packed; 3],
) -> Vec<Batch> {
    let by_name = packed.map(|packed| {
        packed.pieces.iter().map(|piece| (piece.name.as_str(), piece.tensor)).collect::<BTreeMap<&str, Tensor>>()
    });
    let place = |of: usize, name: &str| {
        let view = g.view_of(*by_name[of].get(name)?)?;
        Some((packed[of].storages.iter().position(|storage| *storage == view.storage)?, view.offset))
    };
    let mut alike: BTreeMap<Kind, Vec<Vec<Segment>>> = BTreeMap::new();
    for (name, shape) in names {
        let (Some(grad), Some(parameter), Some(momentum)) = (place(0, name), place(1, name), place(2, name)) else {
            continue;
        };
        let columns = shape.iter().skip(1).product::<usize>().max(1);
        let trained = segments.get(name).into_iter().flatten().filter(|segment| !segment.frozen && segment.n > 0);
        let mut trained: Vec<Segment> = trained
            .map(|s| Segment {
                first: s.first + parameter.1,
                state: s.state + grad.1,
                moment: s.moment + momentum.1,
                ..*s
            })
            .collect();
        trained.sort_by_key(|segment| segment.first);
        for matrix in trained.chunk_by(|a, b| a.first + a.n == b.first) {
            let rows = matrix.iter().map(|segment| segment.n).sum::<usize>() / columns;
            let key = ([rows, columns], [grad.0, parameter.0, momentum.0]);
            alike.entry(key).or_default().push(matrix.to_vec());
        }
    }
    let batch = |((shape, storages), matrices): (Kind, Vec<Vec<Segment>>)| {
        let most = (MOST_ELEMENTS / (shape[0] * shape[1]).max(1)).clamp(1, MAX_MATRICES);
        let batches = matrices.chunks(most).map(|matrices| Batch { shape, storages, matrices: matrices.to_vec() });
        batches.collect::<Vec<_>>()
    };
    alike.into_iter().flat_map(batch).collect()
}
