//! Fewer parameter tokens of a TokenFormer: what each is worth, which stay, and their rows.
//!
//! Every projection keeps as many tokens as the configuration says, but each its own: those of the highest score, in the
//! order they had. So the rows of a cohort stay neighbours, and what a growth added is again one range.
//!
//! ```text
//! weight         |k_i| |v_i|
//! contribution   mean over batches of |<v_i, dL/dv_i>|, the first-order change of the loss L for v_i = 0
//!                (Taylor pruning: Molchanov et al., 2019, arXiv 1906.10771)
//! random         uniform in 0..1, from a seed: what a score must beat to be worth anything
//! ```
//!
//! tau stays the number it was. A token with a zero key adds nothing to the norm of a row of scores, so with a kept tau
//! dropping it changes nothing (both l2 forms; growth by zero keys, backwards), while a tau that followed sqrt(N) would
//! scale every pre-activation down. Dropping other tokens makes the norm smaller, so what stays counts for more; and
//! softmax shares out the same tau^2 among fewer tokens.

use super::grow::width;
use super::init::Tensors;
use crate::array::HostTensor;
use crate::config::{ModelConfig, Module};
use crate::rng::{Rng, Stream};
use std::collections::BTreeMap;

/// What each parameter token is worth, by projection (`layers.0.mlp`).
pub type Scores = BTreeMap<String, Vec<f64>>;

/// The rows that stay, ascending, of every parameter that loses some, by its name.
pub(crate) type Kept = BTreeMap<String, Vec<usize>>;

/// Name and kind of every projection of a TokenFormer.
pub fn projections(model: &ModelConfig) -> impl Iterator<Item = (String, Module)> {
    let named = |layer| Module::ALL.into_iter().map(move |m| (format!("layers.{layer}.{}", m.name()), m));
    (0..model.num_layers).flat_map(named)
}

/// Name of the keys of a projection.
fn keys(projection: &str) -> String {
    format!("{projection}.key_param_tokens")
}

/// Name of the values of a projection.
pub fn values(projection: &str) -> String {
    format!("{projection}.value_param_tokens")
}

/// Scores by the length of key and value.
pub fn weight(model: &ModelConfig, params: &Tensors) -> Scores {
    let lengths = |name: String| rows(params.get(&name)).map(|row| dot(row, row).sqrt()).collect::<Vec<_>>();
    let score = |(name, _): (String, Module)| {
        let products = lengths(keys(&name)).into_iter().zip(lengths(values(&name))).map(|(k, v)| k * v);
        let products = products.collect();
        (name, products)
    };
    projections(model).map(score).collect()
}

/// Scores of one projection from the gradient of the loss on one batch with respect to its values (N, Cout).
pub fn contribution(values: Option<&HostTensor>, gradient: &[f32]) -> Vec<f64> {
    let row = values.map_or(1, |tensor| width(&tensor.shape));
    rows(values).zip(gradient.chunks(row)).map(|(v, dv)| dot(v, dv).abs()).collect()
}

/// Random scores.
pub fn random(model: &ModelConfig, seed: u64) -> Scores {
    let score = |(name, module): (String, Module)| {
        let mut rng = Rng::named(seed, Stream::Prune, &name);
        let scores = (0..model.slots(module)).map(|_| rng.uniform()).collect();
        (name, scores)
    };
    projections(model).map(score).collect()
}

/// The tokens of the highest scores, as many in each projection as `after` has; of equal ones the earlier.
pub fn kept(scores: &Scores, after: &ModelConfig) -> Kept {
    let pick = |(name, module): (String, Module)| {
        let rows = highest(scores.get(&name).map_or(&[][..], Vec::as_slice), after.slots(module));
        [(keys(&name), rows.clone()), (values(&name), rows)]
    };
    projections(after).flat_map(pick).collect()
}

fn highest(scores: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(n);
    order.sort_unstable();
    order
}

/// The rows of `tensors` that stay: parameters or moments.
pub fn tensors(tensors: &Tensors, kept: &Kept) -> Tensors {
    let prune = |(name, tensor): (&String, &HostTensor)| {
        let Some(stay) = kept.get(name) else { return (name.clone(), tensor.clone()) };
        let row = width(&tensor.shape);
        let data = stay.iter().flat_map(|&at| tensor.data.iter().skip(at * row).take(row)).copied().collect();
        let shape = std::iter::once(stay.len()).chain(tensor.shape.iter().skip(1).copied()).collect();
        (name.clone(), HostTensor { shape, data })
    };
    tensors.iter().map(prune).collect()
}

/// Where the rows `first..end` of a parameter are when only `stay` (ascending) are left of it.
pub fn range(stay: &[usize], rows: [u64; 2]) -> [u64; 2] {
    rows.map(|limit| stay.partition_point(|&row| (row as u64) < limit) as u64)
}

fn rows(tensor: Option<&HostTensor>) -> impl Iterator<Item = &[f32]> {
    tensor.into_iter().flat_map(|tensor| tensor.data.chunks(width(&tensor.shape)))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[[f32; 2]]) -> HostTensor {
        HostTensor { shape: vec![rows.len(), 2], data: rows.concat() }
    }

    fn model(slots: [usize; 3]) -> ModelConfig {
        let [qkv_slot_num, proj_slot_num, ffn_slot_num] = slots;
        ModelConfig { num_layers: 1, qkv_slot_num, proj_slot_num, ffn_slot_num, ..ModelConfig::default() }
    }

    #[test]
    fn scores_are_what_the_formulas_say() {
        let (k, v) = (matrix(&[[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]), matrix(&[[0.0, 2.0], [9.0, 9.0], [6.0, 8.0]]));
        // 5 x 2, 0 x |v|, 2 x 10.
        let gradient = [7.0, -0.5, 1.0, -1.0, 0.5, 0.25];
        assert_eq!(contribution(Some(&v), &gradient), [1.0, 0.0, 5.0]);
        let params = Tensors::from([
            ("layers.0.mlp.key_param_tokens".to_owned(), k),
            ("layers.0.mlp.value_param_tokens".to_owned(), v),
        ]);
        let scores = weight(&model([3; 3]), &params);
        assert_eq!(scores["layers.0.mlp"], [10.0, 0.0, 20.0]);
        assert_eq!(scores.len(), 5);
    }

    #[test]
    fn random_scores_are_a_function_of_seed_and_projection() {
        let model = model([40, 20, 30]);
        let scores = random(&model, 3);
        assert_eq!(scores, random(&model, 3));
        assert_ne!(scores, random(&model, 4));
        assert_eq!((scores["layers.0.attention.key"].len(), scores["layers.0.mlp"].len()), (40, 30));
        assert_ne!(scores["layers.0.attention.key"], scores["layers.0.attention.query"]);
    }

    #[test]
    fn the_highest_stay_in_their_order_and_of_equals_the_earlier() {
        assert_eq!(highest(&[1.0, 5.0, 0.0, 5.0, 3.0], 3), [1, 3, 4]);
        assert_eq!(highest(&[2.0, 2.0, 2.0, 2.0], 2), [0, 1]);
        assert_eq!(highest(&[0.0, 1.0], 2), [0, 1]);
        let scores = Scores::from([
            ("layers.0.attention.query".to_owned(), vec![1.0, 2.0, 3.0]),
            ("layers.0.mlp".to_owned(), vec![9.0, 8.0, 7.0]),
        ]);
        let kept = kept(&scores, &model([1, 3, 2]));
        // Each projection picks its own, and keys and values are of the same tokens.
        assert_eq!(kept["layers.0.attention.query.key_param_tokens"], [2]);
        assert_eq!(kept["layers.0.attention.query.value_param_tokens"], [2]);
        assert_eq!(kept["layers.0.mlp.value_param_tokens"], [0, 1]);
    }

    #[test]
    fn rows_that_stay_are_moved_together_and_their_ranges_with_them() {
        let kept = Kept::from([("a".to_owned(), vec![0, 3, 4])]);
        let a = matrix(&[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]);
        let before = Tensors::from([("a".to_owned(), a), ("norm.bias".to_owned(), HostTensor::zeros(&[2]))]);
        let after = tensors(&before, &kept);
        assert_eq!(after["a"], matrix(&[[0.0, 1.0], [6.0, 7.0], [8.0, 9.0]]));
        assert_eq!(after["norm.bias"], before["norm.bias"]);
        let stay = &kept["a"];
        assert_eq!([[0, 2], [2, 4], [4, 5]].map(|rows| range(stay, rows)), [[0, 1], [1, 2], [2, 3]]);
        // Nothing is left of rows 1 and 2.
        assert_eq!(range(stay, [1, 3]), [1, 1]);
    }
}
