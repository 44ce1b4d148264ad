//! When a growth happens: at a step, or once the validation loss no longer falls.

use super::{GrowthConfig, MAX_SIZE, TrainConfig, in_range, not_negative, require};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Evaluations of a plateau where `patience` is left out.
const PATIENCE: usize = 5;
/// Nats per token that count as an improvement where `min_delta` is left out.
const MIN_DELTA: f64 = 0.01;

/// What makes a run grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrowthWhen {
    /// The number of steps done.
    #[default]
    Step,
    /// A validation loss that no longer falls.
    Plateau,
}

/// What counts as a plateau of the validation loss, in the words of Keras's and PyTorch's `ReduceLROnPlateau`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlateauRule {
    /// Evaluations in a row without an improvement.
    pub patience: usize,
    /// How much lower than the lowest loss since the last growth an improvement is, in nats per token.
    pub min_delta: f64,
}

impl GrowthConfig {
    /// The plateau it waits for; `None` where it happens at a step.
    pub fn plateau(&self) -> Option<PlateauRule> {
        let rule =
            PlateauRule { patience: self.patience.unwrap_or(PATIENCE), min_delta: self.min_delta.unwrap_or(MIN_DELTA) };
        (self.when == GrowthWhen::Plateau).then_some(rule)
    }

    /// Whether it can happen in a run of `train`, as its growth `number` (from 1). `previous` are number and step of the
    /// last one before it that happens at a step.
    ///
    /// # Errors
    /// A usage error when it is out of order or past the end of the run, has rules of a plateau and waits for none, or
    /// waits for one that is never looked for.
    pub(crate) fn check_when(
        &self,
        number: usize,
        previous: Option<(usize, usize)>,
        train: &TrainConfig,
    ) -> Result<()> {
        match self.plateau() {
            Some(rule) => check_plateau(number, rule, train)?,
            None => self.check_step(number, previous)?,
        }
        let (at, end) = (self.at_step, train.max_steps);
        require(at < end, || {
            format!(
                "growth {number} has at_step {at}, but the run ends at max_steps {end}: lower at_step, raise max_steps, or \
                 drop the growth (--set growth=[])"
            )
        })
    }

    fn check_step(&self, number: usize, previous: Option<(usize, usize)>) -> Result<()> {
        let given = [
            ("patience", self.patience.map(|patience| patience.to_string())),
            ("min_delta", self.min_delta.map(|delta| delta.to_string())),
        ];
        if let Some((key, value)) = given.into_iter().find_map(|(key, value)| Some((key, value?))) {
            return Err(Error::usage(format!(
                "growth {number} has {key} {value}, but happens at a step and waits for no plateau: leave {key} out, or use \
                 when = \"plateau\""
            )));
        }
        let at = self.at_step;
        require(at > 0, || {
            format!(
                "growth {number} has at_step 0, but a model cannot grow before its first step: set the slot numbers in \
                 [model], a later at_step, or when = \"plateau\""
            )
        })?;
        let (before, step) = previous.unwrap_or_default();
        require(at > step, || {
            format!(
                "growth {number} has at_step {at}, which is not after growth {before} at step {step}: list growths by \
                 ascending at_step"
            )
        })
    }
}

fn check_plateau(number: usize, PlateauRule { patience, min_delta }: PlateauRule, train: &TrainConfig) -> Result<()> {
    require(train.eval_interval > 0, || {
        format!(
            "growth {number} waits for a plateau of the validation loss, but train.eval_interval is 0, so it is computed at \
             the end only: set eval_interval, or use at_step instead of when = \"plateau\""
        )
    })?;
    in_range("patience", patience, 1, MAX_SIZE)?;
    not_negative("min_delta", min_delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> GrowthConfig {
        GrowthConfig { when: GrowthWhen::Plateau, ..GrowthConfig::default() }
    }

    fn refusal(growth: &GrowthConfig, train: &TrainConfig) -> String {
        growth.check_when(2, Some((1, 20)), train).unwrap_err().to_string()
    }

    #[test]
    fn a_plateau_needs_no_step_and_has_the_usual_rules() {
        let train = TrainConfig::default();
        assert_eq!(waiting().plateau(), Some(PlateauRule { patience: 5, min_delta: 0.01 }));
        assert_eq!(GrowthConfig::default().plateau(), None);
        for growth in [
            waiting(),
            // Not before step 10, which no order with other growths follows from.
            GrowthConfig { at_step: 10, ..waiting() },
            GrowthConfig { patience: Some(1), min_delta: Some(0.0), ..waiting() },
        ] {
            growth.check_when(2, Some((1, 20)), &train).unwrap();
        }
    }

    #[test]
    fn a_plateau_that_cannot_be_is_refused() {
        let train = TrainConfig::default();
        let text = refusal(&waiting(), &TrainConfig { eval_interval: 0, ..train.clone() });
        assert!(text.starts_with("growth 2 waits for a plateau") && text.contains("eval_interval is 0"), "{text}");
        let text = refusal(&GrowthConfig { patience: Some(0), ..waiting() }, &train);
        assert!(text.starts_with("patience is 0, but must be between 1 and"), "{text}");
        for delta in [-0.1, f64::NAN, f64::INFINITY] {
            let text = refusal(&GrowthConfig { min_delta: Some(delta), ..waiting() }, &train);
            assert!(text.starts_with(&format!("min_delta is {delta}, but must be a finite number")), "{text}");
        }
        let late = GrowthConfig { at_step: train.max_steps, ..waiting() };
        assert!(refusal(&late, &train).contains("the run ends at max_steps"));
    }

    #[test]
    fn a_step_has_no_rules_of_a_plateau() {
        let train = TrainConfig::default();
        let at = GrowthConfig { at_step: 30, ..GrowthConfig::default() };
        at.check_when(2, Some((1, 20)), &train).unwrap();
        let text = refusal(&GrowthConfig { patience: Some(3), ..at.clone() }, &train);
        assert!(text.starts_with("growth 2 has patience 3, but happens at a step"), "{text}");
        let text = refusal(&GrowthConfig { min_delta: Some(0.5), ..at }, &train);
        assert!(text.starts_with("growth 2 has min_delta 0.5") && text.ends_with("use when = \"plateau\""), "{text}");
    }
}
