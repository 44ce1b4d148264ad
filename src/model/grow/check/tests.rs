//! What cannot grow so, and why not.

use super::*;
use crate::config::{GrowthPolicy, InitKeys, InitValues, Module, NormActivation, TauRule, TrainRule};
use std::f64::consts::SQRT_2;

fn to_ffn(slots: usize) -> GrowthConfig {
    GrowthConfig { ffn_slot_num: Some(slots), ..GrowthConfig::default() }
}

fn by(policy: GrowthPolicy) -> GrowthConfig {
    GrowthConfig { policy, ..GrowthConfig::default() }
}

fn transformer() -> ModelConfig {
    ModelConfig { arch: Arch::Transformer, ..ModelConfig::default() }
}

fn refusal(growth: &GrowthConfig, model: &ModelConfig) -> String {
    growth.check(model).unwrap_err().to_string()
}

#[test]
fn tau_is_kept_or_follows_what_grew() {
    let before = ModelConfig { tau_qkv: Some(2.0), ..ModelConfig::default() };
    let kept = to_ffn(1024).check(&before).unwrap();
    assert_eq!((kept.ffn_slot_num, kept.proj_slot_num), (1024, 128));
    assert_eq!((kept.tau_qkv, kept.tau_proj, kept.tau_ffn), (Some(2.0), Some(128_f64.sqrt()), Some(512_f64.sqrt())));
    let official = GrowthConfig { policy: GrowthPolicy::Official, ..to_ffn(1024) }.check(&before).unwrap();
    assert_eq!((official.tau_qkv, official.tau_proj, official.tau_ffn), (Some(2.0), Some(128_f64.sqrt()), Some(32.0)));
}

#[test]
fn a_copy_doubles_and_scales_tau_whatever_it_was() {
    let before = ModelConfig { tau_qkv: Some(2.0), ..ModelConfig::default() };
    let copy = GrowthConfig { qkv_slot_num: Some(256), ffn_slot_num: Some(1024), ..by(GrowthPolicy::Copy) };
    for norm in [NormActivation::L2NormGelu, NormActivation::GeluL2Norm, NormActivation::Softmax] {
        let after = copy.check(&ModelConfig { norm_activation_type: norm, ..before.clone() }).unwrap();
        assert_eq!((after.qkv_slot_num, after.proj_slot_num, after.ffn_slot_num), (256, 128, 1024));
        assert_eq!((after.tau_qkv, after.tau_proj), (Some(2.0 * SQRT_2), Some(128_f64.sqrt())));
        assert!((after.tau(Module::Mlp) - 32.0).abs() < 1e-12);
    }
    for slots in [768, 1025, 2048, usize::MAX] {
        let text = refusal(&GrowthConfig { ffn_slot_num: Some(slots), ..copy.clone() }, &before);
        assert!(text.contains(&format!("ffn_slot_num is {slots}, but policy \"copy\" doubles")), "{text}");
        assert!(text.contains("use 1024"), "{text}");
    }
}

#[test]
fn shrinking_and_standing_still_are_refused() {
    let model = ModelConfig::default();
    let text = refusal(&to_ffn(48), &model);
    assert!(text.starts_with("growth to 48 ffn slots from 512 would remove parameter tokens"), "{text}");
    assert!(text.ends_with("with `tokenformer prune`"), "{text}");
    assert!(refusal(&to_ffn(512), &model).contains("adds no parameter tokens"));
    assert!(refusal(&GrowthConfig::default(), &model).contains("ffn_slot_num (--ffn-slots) above 512"));
    let mixed = GrowthConfig { qkv_slot_num: Some(64), ..to_ffn(1024) };
    assert!(refusal(&mixed, &model).contains("growth to 64 qkv slots from 128"));
    assert!(refusal(&to_ffn(usize::MAX), &model).contains("ffn_slot_num is"));
    for policy in [GrowthPolicy::Identity, GrowthPolicy::Stack] {
        let to = |layers| GrowthConfig { num_layers: Some(layers), ..by(policy) };
        assert!(refusal(&to(3), &model).starts_with("growth to 3 layers from 4 would remove layers"));
        assert_eq!(refusal(&to(4), &model), "the growth adds no layers: ask for num_layers (--layers) above 4");
        assert_eq!(refusal(&by(policy), &model), refusal(&to(4), &model));
    }
    for policy in [GrowthPolicy::Net2net, GrowthPolicy::ZeroUnits] {
        let to = |units| GrowthConfig { intermediate_size: Some(units), ..by(policy) };
        let text = refusal(&to(0), &transformer());
        assert!(text.starts_with("growth to 0 MLP units from 512 would remove MLP units"), "{text}");
        let text = refusal(&to(512), &transformer());
        assert!(text.ends_with("ask for intermediate_size (--intermediate-size) above 512"), "{text}");
        assert!(refusal(&to(usize::MAX), &transformer()).contains("intermediate_size is"));
    }
}

#[test]
fn depth_grows_in_both_architectures_and_a_stack_by_whole_repeats() {
    for model in [ModelConfig::default(), transformer()] {
        let to = |layers, policy| GrowthConfig { num_layers: Some(layers), ..by(policy) };
        let after = to(5, GrowthPolicy::Identity).check(&model).unwrap();
        assert_eq!((after.num_layers, after.ffn_slot_num, after.mlp_width()), (5, 512, 512));
        assert_eq!(after.tau_ffn, Some(512_f64.sqrt()));
        assert_eq!(to(12, GrowthPolicy::Stack).check(&model).unwrap().num_layers, 12);
        let text = refusal(&to(6, GrowthPolicy::Stack), &model);
        assert_eq!(
            text,
            "num_layers is 6, but policy \"stack\" repeats the whole stack of 4 layers: use a multiple of 4, such as \
             8, or policy (--policy) \"identity\""
        );
        for policy in [GrowthPolicy::Identity, GrowthPolicy::Stack] {
            let text = refusal(&to(1028, policy), &model);
            assert!(text.contains("num_layers is 1028, but must be between 1 and 1024"), "{text}");
        }
    }
}

#[test]
fn units_are_added_to_the_width_there_is() {
    let growth = GrowthConfig { intermediate_size: Some(700), ..by(GrowthPolicy::Net2net) };
    let after = growth.check(&transformer()).unwrap();
    assert_eq!((after.intermediate_size, after.num_layers), (700, 4));
    let text = refusal(&growth, &ModelConfig::default());
    assert!(text.starts_with("a tokenformer has no MLP units, which policy \"net2net\" adds"), "{text}");
    assert!(text.contains("policy = \"preserving\"") && text.contains("arch = \"transformer\""), "{text}");
}

#[test]
fn a_growth_makes_more_of_one_thing() {
    let model = ModelConfig::default();
    let both = GrowthConfig { num_layers: Some(8), ..to_ffn(1024) };
    let text = refusal(&both, &model);
    let start = "num_layers is 8, but policy \"preserving\" only adds parameter tokens: leave num_layers (--layers) out, or \
                 use policy (--policy) \"identity\"";
    assert!(text.starts_with(start) && text.ends_with(" in a growth of its own"), "{text}");
    let text = refusal(&GrowthConfig { policy: GrowthPolicy::Stack, ..both.clone() }, &model);
    assert!(text.starts_with("ffn_slot_num is 1024, but policy \"stack\" only adds layers"), "{text}");
    let text = refusal(&GrowthConfig { intermediate_size: Some(4), ..both.clone() }, &model);
    assert!(text.starts_with("num_layers is 8") && !text.contains("intermediate_size"), "{text}");
    let net2net = GrowthConfig { policy: GrowthPolicy::Net2net, ..both };
    assert!(refusal(&net2net, &transformer()).contains("only adds MLP units"));
    // What stays as it is may be said.
    let same = GrowthConfig { num_layers: Some(4), intermediate_size: Some(512), ..to_ffn(1024) };
    assert!(same.check(&model).is_ok());
}

#[test]
fn a_rule_that_the_policy_does_not_have_is_refused() {
    let copy = GrowthConfig { policy: GrowthPolicy::Copy, ..to_ffn(1024) };
    let stack = GrowthConfig { num_layers: Some(8), ..by(GrowthPolicy::Stack) };
    let spoilt: [fn(&mut GrowthConfig); 3] = [
        |growth| growth.init_keys = Some(InitKeys::Zero),
        |growth| growth.init_values = Some(InitValues::Zero),
        |growth| growth.tau = Some(TauRule::SqrtN),
    ];
    for (spoil, said) in spoilt.into_iter().zip(["init_keys is \"zero\"", "init_values is", "tau is \"sqrt_n\""]) {
        for growth in [&copy, &stack] {
            let mut growth = growth.clone();
            spoil(&mut growth);
            let text = refusal(&growth, &ModelConfig::default());
            assert!(text.starts_with(said) && text.contains("has no such rule"), "{text}");
        }
    }
    for growth in [copy, stack] {
        let rules = GrowthConfig { train: Some(TrainRule::New), lr_scale: Some(0.5), ..growth };
        assert!(rules.check(&ModelConfig::default()).is_ok());
    }
}

#[test]
fn columns_cannot_train_apart_from_their_rows() {
    for policy in [GrowthPolicy::Net2net, GrowthPolicy::ZeroUnits] {
        let growth = GrowthConfig { intermediate_size: Some(700), ..by(policy) };
        let text = refusal(&GrowthConfig { train: Some(TrainRule::New), ..growth.clone() }, &transformer());
        assert!(text.starts_with("train is \"new\"") && text.contains("columns to mlp.dense_4h_to_h"), "{text}");
        let text = refusal(&GrowthConfig { lr_scale: Some(0.5), ..growth.clone() }, &transformer());
        assert!(text.starts_with("lr_scale is 0.5") && text.ends_with("leave lr_scale out"), "{text}");
        let usual = GrowthConfig { train: Some(TrainRule::All), lr_scale: Some(1.0), ..growth };
        assert!(usual.check(&transformer()).is_ok());
    }
}

#[test]
fn a_dead_start_is_refused() {
    let dead = GrowthConfig { init_values: Some(InitValues::Zero), ..to_ffn(1024) };
    assert!(refusal(&dead, &ModelConfig::default()).contains("dead start"));
    let alive = GrowthConfig { init_keys: Some(InitKeys::Random), ..dead };
    assert!(alive.check(&ModelConfig::default()).is_ok());
}

#[test]
fn softmax_and_transformers_are_refused_with_the_reason() {
    let softmax = ModelConfig { norm_activation_type: NormActivation::Softmax, ..ModelConfig::default() };
    assert!(refusal(&to_ffn(1024), &softmax).contains("exp(0) = 1"));
    let official = GrowthConfig { policy: GrowthPolicy::Official, ..to_ffn(1024) };
    // tau^2 multiplies the softmax: the official factor N.
    assert_eq!(official.check(&softmax).unwrap().tau_ffn, Some(32.0));
    let same = GrowthConfig { init_keys: Some(InitKeys::Zero), tau: Some(TauRule::Keep), ..official.clone() };
    assert!(refusal(&same, &softmax).contains("exp(0) = 1"));
    for growth in [to_ffn(1024), official, GrowthConfig { policy: GrowthPolicy::Copy, ..to_ffn(1024) }] {
        let text = refusal(&growth, &transformer());
        assert!(text.contains("no parameter tokens") && text.contains("\"net2net\""), "{text}");
    }
}

#[test]
fn a_learning_rate_multiple_is_positive() {
    let frozen = GrowthConfig { lr_scale: Some(0.0), ..to_ffn(1024) };
    assert!(refusal(&frozen, &ModelConfig::default()).contains("lr_scale is 0"));
}
