//! What each policy makes of each parameter, without a device.

use super::*;
use crate::array::HostTensor;
use crate::config::{Arch, GrowthConfig, GrowthPolicy, Module};
use crate::rng::{Rng, Stream};

fn tokenformer() -> ModelConfig {
    let sizes =
        ModelConfig { vocab_size: 9, num_layers: 2, hidden_size: 8, num_attention_heads: 1, ..ModelConfig::default() };
    let mut model = ModelConfig { qkv_slot_num: 5, proj_slot_num: 6, ffn_slot_num: 7, ..sizes };
    model.freeze_tau();
    model
}

fn transformer() -> ModelConfig {
    ModelConfig { arch: Arch::Transformer, intermediate_size: 11, ..tokenformer() }
}

/// With every option of GPT-NeoX.
fn neox() -> ModelConfig {
    let options = ModelConfig { use_parallel_residual: true, attention_bias: false, ..transformer() };
    ModelConfig { tie_word_embeddings: false, ..options }
}

/// Parameters without a value twice.
fn parameters_of(model: &ModelConfig) -> Tensors {
    let random = |(name, shape): (String, Vec<usize>)| {
        let data = Rng::named(1, Stream::Test, &name).normals(shape.iter().product(), 1.0);
        (name, HostTensor { shape, data })
    };
    model.param_shapes().into_iter().map(random).collect()
}

fn by(policy: GrowthPolicy) -> GrowthConfig {
    GrowthConfig { policy, ..GrowthConfig::default() }
}

/// Old and new parameters, and the shape that they have then.
fn grown(before: &ModelConfig, growth: &GrowthConfig) -> (Tensors, Tensors, ModelConfig) {
    let params = parameters_of(before);
    let after = growth.check(before).unwrap();
    let new = parameters(&params, before, &after, &growth.resolve(), 3);
    let shapes = new.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone()));
    assert_eq!(shapes.collect::<BTreeMap<_, _>>(), after.param_shapes().into_iter().collect());
    assert!(new.values().all(|tensor| tensor.data.len() == tensor.shape.iter().product::<usize>()));
    (params, new, after)
}

fn row(tensor: &HostTensor, at: usize) -> &[f32] {
    &tensor.data[at * width(&tensor.shape)..][..width(&tensor.shape)]
}

#[test]
fn copied_tokens_have_the_old_keys_and_together_the_old_values() {
    let growth = GrowthConfig { qkv_slot_num: Some(10), ffn_slot_num: Some(14), ..by(GrowthPolicy::Copy) };
    let before = tokenformer();
    let (old, new, _) = grown(&before, &growth);
    for (name, tensor) in &new {
        let n = old[name].data.len();
        if tensor.data.len() == n {
            assert_eq!(tensor, &old[name]);
            continue;
        }
        let (first, second) = tensor.data.split_at(n);
        if name.ends_with("key_param_tokens") {
            assert_eq!((first, second), (&old[name].data[..], &old[name].data[..]));
            continue;
        }
        let mut square = 0.0;
        for ((v, a), b) in old[name].data.iter().zip(first).zip(second) {
            assert!((a + b - v).abs() <= 2e-7 * (a.abs() + b.abs()), "{name}: {a} + {b} is not {v}");
            square += f64::from(a - b).powi(2) / n as f64;
        }
        // Values of deviation 1, so the copies are apart by 2 e.
        let ratio = square.sqrt() / (2.0 * copy::NOISE);
        assert!((0.7..1.3).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn copies_of_tokens_without_values_are_apart_too() {
    let (before, growth) = (tokenformer(), GrowthConfig { ffn_slot_num: Some(14), ..by(GrowthPolicy::Copy) });
    let mut params = parameters_of(&before);
    let name = "layers.0.mlp.value_param_tokens";
    params.get_mut(name).unwrap().data.fill(0.0);
    let after = growth.check(&before).unwrap();
    let new = &parameters(&params, &before, &after, &growth.resolve(), 3)[name].data;
    let (first, second) = new.split_at(new.len() / 2);
    assert!(first.iter().zip(second).all(|(a, b)| a + b == 0.0 && a != b));
}

#[test]
fn copied_units_have_the_incoming_weights_and_share_the_outgoing_ones() {
    let before = transformer();
    let growth = GrowthConfig { intermediate_size: Some(25), ..by(GrowthPolicy::Net2net) };
    let (old, new, _) = grown(&before, &growth);
    let mut mappings = Vec::new();
    for layer in 0..2 {
        let of = |set: &Tensors, name: &str| set[&format!("layers.{layer}.mlp.{name}")].clone();
        let [weight, bias, out] = ["dense_h_to_4h.weight", "dense_h_to_4h.bias", "dense_4h_to_h.weight"]
            .map(|name| (of(&old, name), of(&new, name)));
        let original = |unit: usize| (0..11).find(|&old| row(&weight.0, old) == row(&weight.1, unit)).unwrap();
        let originals: Vec<usize> = (0..25).map(original).collect();
        assert_eq!(&originals[..11], (0..11).collect::<Vec<_>>());
        for (unit, &original) in originals.iter().enumerate() {
            assert_eq!(bias.1.data[unit], bias.0.data[original]);
        }
        for channel in 0..8 {
            let (old, new) = (row(&out.0, channel), row(&out.1, channel));
            for (unit, weight) in old.iter().enumerate() {
                let copies = || originals.iter().zip(new).filter(|(o, _)| **o == unit).map(|(_, w)| w / weight);
                assert!((copies().sum::<f32>() - 1.0).abs() < 1e-6);
                assert!(copies().count() == 1 || copies().all(|share| share > 0.0 && share < 0.95));
            }
        }
        mappings.push(originals);
    }
    assert_ne!(mappings[0], mappings[1]);
    assert!(old.iter().all(|(name, tensor)| name.contains("mlp.dense_h_to_4h.")
        || name.ends_with("mlp.dense_4h_to_h.weight")
        || new[name] == *tensor));
}

#[test]
fn new_units_read_and_do_not_write() {
    let growth = GrowthConfig { intermediate_size: Some(20), ..by(GrowthPolicy::ZeroUnits) };
    let (old, new, _) = grown(&transformer(), &growth);
    let (incoming, outgoing) = ("layers.1.mlp.dense_h_to_4h.weight", "layers.1.mlp.dense_4h_to_h.weight");
    assert_eq!(new[incoming].data[..11 * 8], old[incoming].data);
    assert!(new[incoming].data[11 * 8..].iter().all(|x| *x != 0.0 && x.abs() < 0.2));
    for channel in 0..8 {
        let (kept, added) = row(&new[outgoing], channel).split_at(11);
        assert_eq!(kept, row(&old[outgoing], channel));
        assert!(added.iter().all(|x| *x == 0.0));
    }
    assert!(new["layers.1.mlp.dense_h_to_4h.bias"].data[11..].iter().all(|x| *x == 0.0));
}

#[test]
fn identity_layers_write_nothing_and_are_otherwise_new() {
    for before in [tokenformer(), transformer(), neox()] {
        let growth = GrowthConfig { num_layers: Some(5), ..by(GrowthPolicy::Identity) };
        let (old, new, after) = grown(&before, &growth);
        assert!(old.iter().all(|(name, tensor)| new[name] == *tensor));
        for (name, tensor) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            let zero = tensor.data.iter().all(|x| *x == 0.0);
            let written =
                name.contains("attention.proj") || name.contains("mlp.dense_4h") || name.contains("mlp.value");
            let key = name.ends_with("key_param_tokens");
            assert_eq!(zero, written && !key || name.ends_with("bias"), "{name}");
        }
        for layer in 2..5 {
            let name = format!(
                "layers.{layer}.{}",
                if before.arch == Arch::Tokenformer { "mlp.key_param_tokens" } else { "mlp.dense_h_to_4h.weight" }
            );
            assert!(new.contains_key(&name));
        }
        assert_eq!(Module::ALL.map(|m| after.tau(m)), Module::ALL.map(|m| before.tau(m)));
    }
}

#[test]
fn a_stack_is_repeated_in_order() {
    for before in [tokenformer(), transformer(), neox()] {
        let (old, new, _) = grown(&before, &GrowthConfig { num_layers: Some(6), ..by(GrowthPolicy::Stack) });
        for (name, tensor) in &new {
            let Some((layer, rest)) = name.strip_prefix("layers.").and_then(|n| n.split_once('.')) else {
                assert_eq!(tensor, &old[name]);
                continue;
            };
            let layer: usize = layer.parse().unwrap();
            assert_eq!(tensor, &old[&format!("layers.{}.{rest}", layer % 2)], "{name}");
        }
    }
}

#[test]
fn moments_of_what_is_old_are_kept_and_others_start_at_zero() {
    let sizes = [
        (tokenformer(), GrowthConfig { ffn_slot_num: Some(14), ..by(GrowthPolicy::Copy) }),
        (tokenformer(), GrowthConfig { num_layers: Some(4), ..by(GrowthPolicy::Stack) }),
        (transformer(), GrowthConfig { intermediate_size: Some(20), ..by(GrowthPolicy::Net2net) }),
    ];
    for (before, growth) in sizes {
        let (old, after) = (parameters_of(&before), growth.check(&before).unwrap());
        let new = moments(&old, &after);
        for (name, shape) in after.param_shapes() {
            let moment = &new[&name];
            assert_eq!(moment.shape, shape);
            for (at, values) in moment.data.chunks(width(&shape)).enumerate() {
                let kept = old.get(&name).filter(|old| at < old.rows()).map_or(&[][..], |old| row(old, at));
                assert_eq!(&values[..kept.len()], kept, "{name}");
                assert!(values[kept.len()..].iter().all(|x| *x == 0.0), "{name}");
            }
        }
    }
}

#[test]
fn rows_are_new_where_there_were_none_and_columns_are_not() {
    let rows = |before: &ModelConfig, growth: GrowthConfig| new_rows(before, &growth.check(before).unwrap());
    let tokens = rows(&tokenformer(), GrowthConfig { ffn_slot_num: Some(14), ..by(GrowthPolicy::Copy) });
    assert_eq!(tokens.len(), 2 * 2);
    assert_eq!(tokens["layers.1.mlp.value_param_tokens"], [7, 14]);
    let units = rows(&transformer(), GrowthConfig { intermediate_size: Some(20), ..by(GrowthPolicy::ZeroUnits) });
    assert_eq!(units.len(), 2 * 2);
    assert_eq!(units["layers.0.mlp.dense_h_to_4h.bias"], [11, 20]);
    let layers = rows(&transformer(), GrowthConfig { num_layers: Some(3), ..by(GrowthPolicy::Identity) });
    assert!(layers.len() == 16 && layers.keys().all(|name| name.starts_with("layers.2.")));
    assert_eq!(layers["layers.2.mlp.dense_4h_to_h.weight"], [0, 8]);
    let layers = rows(&neox(), GrowthConfig { num_layers: Some(3), ..by(GrowthPolicy::Identity) });
    assert!(layers.len() == 12 && layers.keys().all(|name| name.starts_with("layers.2.")));
}
