//! Whether a model can grow as a growth says, and the shape it then has.
//!
//! Every combination that cannot be done, or would not do what its policy promises, is refused here.

use super::growth::Grows;
use super::{
    Arch, GrowthConfig, GrowthPolicy, InitKeys, InitValues, ModelConfig, Module, NormActivation, ResolvedGrowth,
    TauRule, TrainRule, positive, require,
};
use crate::error::Result;
use serde::Serialize;
use std::f64::consts::SQRT_2;

/// One size that a growth may change.
struct Size {
    key: &'static str,
    /// As the command line of `grow` has it.
    option: &'static str,
    /// What there are so many of.
    noun: &'static str,
    kind: Grows,
    old: usize,
    new: usize,
}

impl Grows {
    /// What there is more of afterwards.
    fn noun(self) -> &'static str {
        match self {
            Self::Tokens => "parameter tokens",
            Self::Layers => "layers",
            Self::Units => "MLP units",
        }
    }

    /// The policies that do it.
    fn policies(self) -> &'static str {
        match self {
            Self::Tokens => "\"preserving\", \"copy\" or \"official\"",
            Self::Layers => "\"identity\" or \"stack\"",
            Self::Units => "\"net2net\" or \"zero_units\"",
        }
    }
}

/// A choice as configurations write it, in quotes.
fn word(choice: impl Serialize) -> String {
    serde_json::to_string(&choice).unwrap_or_default()
}

impl GrowthConfig {
    /// The model that `before` becomes, every scale a stored number. Does not look at when it grows.
    ///
    /// # Errors
    /// A usage error when the policy does not fit the architecture, when nothing would grow, or something would shrink
    /// or is not what the policy grows, when a rule does not go with the policy, when the new parameters could never
    /// learn, or when the policy cannot hold its promise.
    pub fn check(&self, before: &ModelConfig) -> Result<ModelConfig> {
        let rules = self.resolve();
        self.check_arch(before.arch)?;
        positive("lr_scale", rules.lr_scale)?;
        self.check_sizes(before)?;
        self.check_rules(rules)?;
        let mut after = before.clone();
        after.freeze_tau();
        match self.policy.grows() {
            Grows::Tokens => {
                self.check_start(before.norm_activation_type, rules)?;
                self.grow_tokens(before, rules, &mut after);
            }
            Grows::Layers => after.num_layers = self.num_layers.unwrap_or(before.num_layers),
            Grows::Units => after.intermediate_size = self.intermediate_size.unwrap_or(before.intermediate_size),
        }
        after.validate()?;
        Ok(after)
    }

    /// The architecture has what the policy grows.
    fn check_arch(&self, arch: Arch) -> Result<()> {
        let (kind, policy) = (self.policy.grows(), word(self.policy));
        let (layers, units) = (Grows::Layers.policies(), Grows::Units.policies());
        require(!(kind == Grows::Tokens && arch == Arch::Transformer), || {
            format!(
                "a transformer has no parameter tokens, which policy {policy} adds: use policy = {layers} for layers or \
                 {units} for MLP units, arch = \"tokenformer\", or drop the growth (growth = [])"
            )
        })?;
        require(!(kind == Grows::Units && arch == Arch::Tokenformer), || {
            let tokens = Grows::Tokens.policies();
            format!(
                "a tokenformer has no MLP units, which policy {policy} adds: use policy = {tokens} for parameter tokens or \
                 {layers} for layers, or arch = \"transformer\""
            )
        })
    }

    fn sizes(&self, before: &ModelConfig) -> [Size; 5] {
        let size = |[key, option, noun]: [&'static str; 3], kind, old, new: Option<usize>| {
            let new = new.unwrap_or(old);
            Size { key, option, noun, kind, old, new }
        };
        let qkv = ["qkv_slot_num", "--qkv-slots", "qkv slots"];
        let proj = ["proj_slot_num", "--proj-slots", "proj slots"];
        let ffn = ["ffn_slot_num", "--ffn-slots", "ffn slots"];
        let layers = ["num_layers", "--layers", "layers"];
        let units = ["intermediate_size", "--intermediate-size", "MLP units"];
        [
            size(qkv, Grows::Tokens, before.qkv_slot_num, self.qkv_slot_num),
            size(proj, Grows::Tokens, before.proj_slot_num, self.proj_slot_num),
            size(ffn, Grows::Tokens, before.ffn_slot_num, self.ffn_slot_num),
            size(layers, Grows::Layers, before.num_layers, self.num_layers),
            size(units, Grows::Units, before.mlp_width(), self.intermediate_size),
        ]
    }

    /// Only what the policy grows changes, nothing shrinks, something grows, and by as much as the policy can.
    fn check_sizes(&self, before: &ModelConfig) -> Result<()> {
        let (kind, policy) = (self.policy.grows(), word(self.policy));
        let sizes = self.sizes(before);
        for Size { key, option, noun, kind: other, old, new } in sizes.iter().filter(|size| size.new != size.old) {
            require(*other == kind, || {
                format!(
                    "{key} is {new}, but policy {policy} only adds {}: leave {key} ({option}) out, or use policy (--policy) \
                     {} in a growth of its own",
                    kind.noun(),
                    other.policies()
                )
            })?;
            require(new > old, || {
                format!(
                    "growth to {new} {noun} from {old} would remove {}, which growth cannot do: ask for more than {old}, \
                     or {}",
                    kind.noun(),
                    match kind {
                        Grows::Tokens => "make the model smaller with `tokenformer prune`",
                        Grows::Layers | Grows::Units => "train a smaller model from the start",
                    }
                )
            })?;
            require(self.policy != GrowthPolicy::Copy || Some(*new) == old.checked_mul(2), || {
                let twice = old.saturating_mul(2);
                format!(
                    "{key} is {new}, but policy {policy} doubles what it grows: use {twice}, or leave {key} ({option}) out"
                )
            })?;
            require(self.policy != GrowthPolicy::Stack || new.is_multiple_of(*old), || {
                let twice = old.saturating_mul(2);
                format!(
                    "{key} is {new}, but policy {policy} repeats the whole stack of {old} layers: use a multiple of \
                     {old}, such as {twice}, or policy (--policy) \"identity\""
                )
            })?;
        }
        require(sizes.iter().any(|size| size.kind == kind && size.new > size.old), || {
            let above = sizes
                .iter()
                .filter(|size| size.kind == kind)
                .map(|s| format!("{} ({}) above {}", s.key, s.option, s.old));
            format!("the growth adds no {}: ask for {}", kind.noun(), above.collect::<Vec<_>>().join(" or "))
        })
    }

    /// Every rule that is given is one of the policy's, and can be kept.
    fn check_rules(&self, rules: ResolvedGrowth) -> Result<()> {
        let policy = word(self.policy);
        let appends = matches!(self.policy, GrowthPolicy::Preserving | GrowthPolicy::Official);
        let given = [
            ("init_keys", self.init_keys.map(word)),
            ("init_values", self.init_values.map(word)),
            ("tau", self.tau.map(word)),
        ];
        for (key, value) in given.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            require(appends, || {
                format!(
                    "{key} is {value}, but policy {policy} has no such rule: leave {key} out, or use policy = \
                     \"preserving\" or \"official\""
                )
            })?;
        }
        let of_rows = [
            ("train", word(rules.train), rules.train == TrainRule::All),
            ("lr_scale", rules.lr_scale.to_string(), rules.lr_scale == 1.0),
        ];
        for (key, value, usual) in of_rows {
            require(usual || self.policy.grows() != Grows::Units, || {
                format!(
                    "{key} is {value}, but policy {policy} also adds columns to mlp.dense_4h_to_h.weight, and only whole \
                     rows can train by a rule of their own: leave {key} out"
                )
            })?;
        }
        Ok(())
    }

    /// The new tokens can learn, and a policy that promises to preserve the model can do so. Copies always can: see
    /// the model room.
    fn check_start(&self, activation: NormActivation, rules: ResolvedGrowth) -> Result<()> {
        let zero_keys = rules.init_keys == Some(InitKeys::Zero);
        if activation == NormActivation::Softmax {
            let keeps = zero_keys && rules.tau == Some(TauRule::Keep);
            return require(!(self.policy == GrowthPolicy::Preserving || keeps), || {
                "growth cannot preserve a model with norm_activation_type \"softmax\", because exp(0) = 1 and so a new \
                 token with a zero key still takes its share: use policy = \"copy\", policy = \"official\" with its own \
                 rules, or an l2 normalisation from the start"
                    .to_owned()
            });
        }
        require(!(zero_keys && rules.init_values == Some(InitValues::Zero)), || {
            "new tokens with zero keys and zero values never get a gradient (a dead start): use init_values = \"random\" \
             or init_keys = \"random\""
                .to_owned()
        })
    }

    /// New slot numbers, and the scales of what they belong to.
    fn grow_tokens(&self, before: &ModelConfig, rules: ResolvedGrowth, after: &mut ModelConfig) {
        after.qkv_slot_num = self.qkv_slot_num.unwrap_or(before.qkv_slot_num);
        after.proj_slot_num = self.proj_slot_num.unwrap_or(before.proj_slot_num);
        after.ffn_slot_num = self.ffn_slot_num.unwrap_or(before.ffn_slot_num);
        let tau = |module| {
            let (slots, old) = (after.slots(module), before.tau(module));
            Some(match (self.policy, rules.tau) {
                _ if slots == before.slots(module) => old,
                (GrowthPolicy::Copy, _) => old * SQRT_2,
                (_, Some(TauRule::SqrtN)) => (slots as f64).sqrt(),
                _ => old,
            })
        };
        let scales = [tau(Module::Query), tau(Module::Proj), tau(Module::Mlp)];
        [after.tau_qkv, after.tau_proj, after.tau_ffn] = scales;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            (kept.tau_qkv, kept.tau_proj, kept.tau_ffn),
            (Some(2.0), Some(128_f64.sqrt()), Some(512_f64.sqrt()))
        );
        let official = GrowthConfig { policy: GrowthPolicy::Official, ..to_ffn(1024) }.check(&before).unwrap();
        assert_eq!(
            (official.tau_qkv, official.tau_proj, official.tau_ffn),
            (Some(2.0), Some(128_f64.sqrt()), Some(32.0))
        );
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
        assert_eq!(
            text,
            "num_layers is 8, but policy \"preserving\" only adds parameter tokens: leave num_layers (--layers) out, or \
             use policy (--policy) \"identity\" or \"stack\" in a growth of its own"
        );
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
}
