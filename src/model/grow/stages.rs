//! Whether a run can be: every setting on its own, then its growths played through in order.

use crate::config::{ModelConfig, RunConfig, require};
use crate::error::Result;

impl RunConfig {
    /// Checks every setting on its own, then plays the growths through in order.
    ///
    /// # Errors
    /// A usage error: one sentence naming the setting, its value, the limit and the remedy.
    pub fn validate(&self) -> Result<()> {
        require(!self.out_dir.as_os_str().is_empty(), || {
            "out_dir is empty: name the directory the run is written to, such as runs/default".to_owned()
        })?;
        self.model.validate()?;
        self.train.validate(&self.model)?;
        self.data.validate()?;
        self.stages()?;
        // A run whose settings could not be read again could not be taken up again.
        self.to_toml().map(drop)
    }

    /// The model of each stage of the run: as it starts, then after each growth.
    ///
    /// # Errors
    /// A usage error when growths are out of order, past the end of the run, wait for a plateau that is never looked for,
    /// or are refused by [`GrowthConfig::check`](crate::config::GrowthConfig::check).
    pub fn stages(&self) -> Result<Vec<ModelConfig>> {
        let mut stages = vec![self.model.clone()];
        let mut model = self.model.clone();
        let mut previous = None;
        for (number, growth) in (1..).zip(&self.growth) {
            growth.check_when(number, previous, &self.train)?;
            model = growth.check(&model)?;
            stages.push(model.clone());
            previous = growth.plateau().map_or(Some((number, growth.at_step)), |_| previous);
        }
        Ok(stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GrowthConfig, GrowthWhen, Module};

    fn growing(steps: &[(usize, usize)]) -> RunConfig {
        let growth = |&(at_step, ffn): &(usize, usize)| GrowthConfig {
            at_step,
            ffn_slot_num: Some(ffn),
            ..GrowthConfig::default()
        };
        RunConfig { growth: steps.iter().map(growth).collect(), ..RunConfig::default() }
    }

    fn refusal(config: &RunConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn growths_are_played_through_in_order() {
        let stages = growing(&[(10, 640), (20, 768)]).stages().unwrap();
        assert_eq!(stages.iter().map(|m| m.ffn_slot_num).collect::<Vec<_>>(), [512, 640, 768]);
        assert!(stages.iter().all(|m| m.tau(Module::Mlp) == 512_f64.sqrt()));
        // 600 fits the model at step 0, but not the one it meets.
        assert!(refusal(&growing(&[(10, 640), (20, 600)])).contains("growth to 600 ffn slots from 640"));
    }

    #[test]
    fn growth_steps_ascend_inside_the_run() {
        assert!(refusal(&growing(&[(0, 640)])).contains("before its first step"));
        assert!(refusal(&growing(&[(20, 640), (20, 768)])).contains("not after growth 1 at step 20"));
        let end = RunConfig::default().train.max_steps;
        assert!(refusal(&growing(&[(end, 640)])).contains("max_steps"));
        // One on a plateau in between has no part in the order of steps, but in that of sizes.
        let mut mixed = growing(&[(20, 640), (0, 768), (30, 896)]);
        mixed.growth[1].when = GrowthWhen::Plateau;
        assert_eq!(mixed.stages().unwrap().len(), 4);
        mixed.growth[2].at_step = 20;
        assert!(refusal(&mixed).contains("growth 3 has at_step 20, which is not after growth 1 at step 20"));
    }
}
