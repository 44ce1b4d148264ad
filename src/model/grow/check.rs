//! Whether a model can grow as a growth says, and the shape it then has.
//!
//! Every combination that cannot be done, or would not do what its policy promises, is refused here or by the policy's
//! own `check`.

use super::policy::{Asked, Grows, Policy, Size, word};
use super::table::{policies, policy};
use crate::config::{Arch, GrowthConfig, ModelConfig, Module, ResolvedGrowth, positive, require};
use crate::error::Result;

/// The policies that make more of this, as a choice between them.
fn policies_for(grows: Grows) -> String {
    let names: Vec<String> =
        policies().filter(|policy| policy.grows == grows).map(|policy| word(policy.name)).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

impl GrowthConfig {
    /// The model that `before` becomes, every scale a stored number. Does not look at when it grows.
    ///
    /// # Errors
    /// A usage error when the policy does not fit the architecture, when nothing would grow, or something would shrink
    /// or is not what the policy grows, when a rule does not go with the policy, when the new parameters could never
    /// learn, or when the policy cannot hold its promise.
    pub fn check(&self, before: &ModelConfig) -> Result<ModelConfig> {
        let (policy, rules) = (policy(self.policy), self.resolve());
        check_arch(policy, before.arch)?;
        positive("lr_scale", rules.lr_scale)?;
        let asked = Asked { policy, before, rules, sizes: self.sizes(before) };
        check_sizes(policy, &asked.sizes)?;
        self.check_rules(policy)?;
        (policy.check)(&asked)?;
        let mut after = before.clone();
        after.freeze_tau();
        match policy.grows {
            Grows::Tokens => self.grow_tokens(policy, &rules, before, &mut after),
            Grows::Layers => after.num_layers = self.num_layers.unwrap_or(before.num_layers),
            Grows::Units => after.intermediate_size = self.intermediate_size.unwrap_or(before.intermediate_size),
        }
        after.validate()?;
        Ok(after)
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

    /// Every rule that is given is one of the policy's.
    fn check_rules(&self, policy: &Policy) -> Result<()> {
        let defaults = policy.defaults;
        let given = [
            ("init_keys", self.init_keys.map(word), defaults.init_keys.is_some()),
            ("init_values", self.init_values.map(word), defaults.init_values.is_some()),
            ("tau", self.tau.map(word), defaults.tau.is_some()),
        ];
        let foreign = given.into_iter().find_map(|(key, value, known)| Some((key, value.filter(|_| !known)?)));
        require(foreign.is_none(), || {
            let (key, value) = foreign.unwrap_or_default();
            let name = word(policy.name);
            format!(
                "{key} is {value}, but policy {name} has no such rule: leave {key} out, or use policy = \
                 \"preserving\" or \"official\""
            )
        })
    }

    /// New slot numbers, and the scales of what they belong to.
    fn grow_tokens(&self, policy: &Policy, rules: &ResolvedGrowth, before: &ModelConfig, after: &mut ModelConfig) {
        after.qkv_slot_num = self.qkv_slot_num.unwrap_or(before.qkv_slot_num);
        after.proj_slot_num = self.proj_slot_num.unwrap_or(before.proj_slot_num);
        after.ffn_slot_num = self.ffn_slot_num.unwrap_or(before.ffn_slot_num);
        let tau = |module| {
            let (slots, old) = (after.slots(module), before.tau(module));
            Some(if slots == before.slots(module) { old } else { (policy.tau)(rules, old, slots) })
        };
        let scales = [tau(Module::Query), tau(Module::Proj), tau(Module::Mlp)];
        [after.tau_qkv, after.tau_proj, after.tau_ffn] = scales;
    }
}

/// The architecture has what the policy grows.
fn check_arch(policy: &Policy, arch: Arch) -> Result<()> {
    let (kind, name) = (policy.grows, word(policy.name));
    require(!(kind == Grows::Tokens && arch == Arch::Transformer), || {
        format!(
            "a transformer has no parameter tokens, which policy {name} adds: use policy = {} for layers or {} for MLP \
             units, arch = \"tokenformer\", or drop the growth (--set growth=[])",
            policies_for(Grows::Layers),
            policies_for(Grows::Units)
        )
    })?;
    require(!(kind == Grows::Units && arch == Arch::Tokenformer), || {
        format!(
            "a tokenformer has no MLP units, which policy {name} adds: use policy = {} for parameter tokens or {} for \
             layers, or arch = \"transformer\"",
            policies_for(Grows::Tokens),
            policies_for(Grows::Layers)
        )
    })
}

/// Only what the policy grows changes, nothing shrinks, and something grows.
fn check_sizes(policy: &Policy, sizes: &[Size]) -> Result<()> {
    let (kind, name) = (policy.grows, word(policy.name));
    for Size { key, option, noun, kind: other, old, new } in sizes.iter().filter(|size| size.new != size.old) {
        require(*other == kind, || {
            format!(
                "{key} is {new}, but policy {name} only adds {}: leave {key} ({option}) out, or use policy (--policy) {} in \
                 a growth of its own",
                kind.noun(),
                policies_for(*other)
            )
        })?;
        require(new > old, || {
            format!(
                "growth to {new} {noun} from {old} would remove {}, which growth cannot do: ask for more than {old}, or {}",
                kind.noun(),
                match kind {
                    Grows::Tokens => "make the model smaller with `tokenformer prune`",
                    Grows::Layers | Grows::Units => "train a smaller model from the start",
                }
            )
        })?;
    }
    require(sizes.iter().any(|size| size.kind == kind && size.new > size.old), || {
        let above = sizes.iter().filter(|size| size.kind == kind);
        let above: Vec<String> = above.map(|s| format!("{} ({}) above {}", s.key, s.option, s.old)).collect();
        format!("the growth adds no {}: ask for {}", kind.noun(), above.join(" or "))
    })
}

#[cfg(test)]
mod tests;
