//! The growth policies there are.

use super::policy::{Defaults, Policy};
use crate::config::{GrowthConfig, GrowthPolicy, ResolvedGrowth, TrainRule, growth_policies};
use clap::ValueEnum;

macro_rules! table {
    ($($policy:ident = $file:ident),*) => {
        /// The policy called `name`.
        pub fn policy(name: GrowthPolicy) -> &'static Policy {
            match name {
                $(GrowthPolicy::$policy => &super::$file::POLICY,)*
            }
        }
    };
}

growth_policies!(table);

/// All of them, in the order of `grow --help`.
pub fn policies() -> impl Iterator<Item = &'static Policy> {
    GrowthPolicy::value_variants().iter().map(|name| policy(*name))
}

impl GrowthConfig {
    /// The policy's rules with the explicit ones over them.
    pub fn resolve(&self) -> ResolvedGrowth {
        let Defaults { init_keys, init_values, tau, optimizer } = policy(self.policy).defaults;
        ResolvedGrowth {
            policy: self.policy,
            init_keys: self.init_keys.or(init_keys),
            init_values: self.init_values.or(init_values),
            tau: self.tau.or(tau),
            optimizer: self.optimizer.unwrap_or(optimizer),
            lr_scale: self.lr_scale.unwrap_or(1.0),
            train: self.train.unwrap_or(TrainRule::All),
            plateau: self.plateau(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Promise;
    use super::*;
    use crate::config::{GrowthWhen, InitKeys, InitValues, OptimizerRule, TauRule};

    #[test]
    fn explicit_rules_override_the_policy() {
        let official =
            GrowthConfig { policy: GrowthPolicy::Official, tau: Some(TauRule::Keep), ..GrowthConfig::default() };
        let expected = ResolvedGrowth {
            policy: GrowthPolicy::Official,
            init_keys: Some(InitKeys::Random),
            init_values: Some(InitValues::Random),
            tau: Some(TauRule::Keep),
            optimizer: OptimizerRule::Reset,
            lr_scale: 1.0,
            train: TrainRule::All,
            plateau: None,
        };
        assert_eq!(official.resolve(), expected);
        let preserving = GrowthConfig::default().resolve();
        assert_eq!((preserving.init_keys, preserving.tau), (Some(InitKeys::Zero), Some(TauRule::Keep)));
        assert_eq!(preserving.optimizer, OptimizerRule::Carry);
    }

    #[test]
    fn a_record_names_the_rules_that_the_policy_has() {
        let words = |policy| {
            let growth = GrowthConfig { policy, ..GrowthConfig::default() };
            serde_json::to_string(&growth.resolve()).unwrap()
        };
        assert_eq!(
            words(GrowthPolicy::Net2net),
            r#"{"policy":"net2net","optimizer":"carry","lr_scale":1.0,"train":"all"}"#
        );
        let plateau = GrowthConfig { when: GrowthWhen::Plateau, patience: Some(3), ..GrowthConfig::default() };
        let said = serde_json::to_string(&plateau.resolve()).unwrap();
        assert!(said.ends_with(r#","plateau":{"patience":3,"min_delta":0.01}}"#), "{said}");
        assert!(words(GrowthPolicy::Preserving).contains(r#""init_keys":"zero","init_values":"random","tau":"keep""#));
    }

    #[test]
    fn every_policy_is_found_by_its_name_and_its_help_says_what_it_promises() {
        for policy in policies() {
            assert!(std::ptr::eq(super::policy(policy.name), policy));
            let value = policy.name.to_possible_value().unwrap();
            let help = value.get_help().unwrap().to_string();
            let (kept, rounded) = (help.contains("change nothing"), help.contains("changes nothing but roundings"));
            let promise = match (kept, rounded) {
                (true, false) => Promise::SameBits,
                (false, true) => Promise::Roundings,
                _ => Promise::Changes,
            };
            assert_eq!(promise, policy.promise, "{help}");
        }
    }
}
