//! What updates the parameters, and the moving average of them: the values that the settings may have, and their checks.

use serde::{Deserialize, Serialize};

use super::{TrainConfig, not_negative, require};
use crate::error::Result;

/// What updates the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// AdamW, all of them.
    Adamw,
    /// Muon the matrices of layers (weights of projections, keys and values of a Pattention), AdamW all else. Such a matrix has one
    /// moment and not two, and takes 15 more products a step.
    Muon,
}

impl Optimizer {
    /// As the settings have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Adamw => "adamw",
            Self::Muon => "muon",
        }
    }
}

/// What a Muon update is multiplied by besides the learning rate, for a matrix of so many rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MuonAdjust {
    /// `0.2 sqrt(max(rows, columns))`: elements change about as much as with AdamW, so both go by one `lr` and `weight_decay`.
    MatchRmsAdamw,
    /// `sqrt(max(1, rows / columns))`, Keller Jordan's: for a learning rate of Muon's own, such as `muon_lr = 0.02`.
    Original,
}

impl MuonAdjust {
    /// The factor for a matrix.
    pub(crate) fn of(self, [rows, columns]: [usize; 2]) -> f64 {
        let [rows, columns] = [rows as f64, columns as f64];
        match self {
            Self::MatchRmsAdamw => 0.2 * rows.max(columns).sqrt(),
            Self::Original => (rows / columns).max(1.0).sqrt(),
        }
    }
}

/// Updates of an average before which it follows the parameters more closely: see [`TrainConfig::average_decay`].
const AVERAGE_START: f64 = 10.0;

impl TrainConfig {
    /// The decay of the moving average at update number `t`, counted from 1: `min(ema_decay, (1 + t) / (10 + t))`, as TensorFlow
    /// and `torch_ema` have it. So the first parameters, which are random, are soon forgotten, and the average of few updates is
    /// one of few parameters. `None` without an average.
    pub fn average_decay(&self, t: u64) -> Option<f64> {
        let t = t as f64;
        (self.ema_decay > 0.0).then(|| self.ema_decay.min((1.0 + t) / (AVERAGE_START + t)))
    }

    /// The learning rate of Muon as a multiple of that of AdamW.
    pub(crate) fn muon_rate(&self) -> f64 {
        if self.muon_lr > 0.0 { self.muon_lr / self.lr } else { 1.0 }
    }

    /// Checks the settings of the optimizer and of the average.
    ///
    /// # Errors
    /// A usage error naming the setting, its value, the limit and the remedy.
    pub(super) fn validate_optimizer(&self) -> Result<()> {
        not_negative("muon_lr", self.muon_lr)?;
        require((0.0..1.0).contains(&self.muon_momentum) && (self.muon_momentum as f32) < 1.0, || {
            format!(
                "muon_momentum is {}, but must be at least 0 and below 1: the usual value is 0.95",
                self.muon_momentum
            )
        })?;
        require(!(self.optimizer == Optimizer::Muon && self.shard_optimizer), || {
            "shard_optimizer shares out single elements, and optimizer \"muon\" updates whole matrices: set shard_optimizer = \
             false, or optimizer = \"adamw\""
                .to_owned()
        })?;
        // In 32 bits, where the device multiplies by 1 - ema_decay.
        require((0.0..1.0).contains(&self.ema_decay) && (self.ema_decay as f32) < 1.0, || {
            format!(
                "ema_decay is {}, but must be at least 0 and below 1: 0 keeps no average, and the usual values are 0.99 to 0.9999",
                self.ema_decay
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;

    #[test]
    fn an_average_starts_close_to_the_parameters_and_then_has_its_decay() {
        let train = TrainConfig { ema_decay: 0.9, ..TrainConfig::default() };
        assert_eq!([1, 8, 80, 81, 9999].map(|t| train.average_decay(t).unwrap()), [2.0 / 11.0, 0.5, 0.9, 0.9, 0.9]);
        assert_eq!(TrainConfig::default().average_decay(1), None);
    }

    #[test]
    fn updates_of_muon_are_scaled_as_in_pytorch() {
        // 0.2 is the usual root mean square of an update of AdamW, 1 / sqrt(max(m, n)) that of an orthogonal matrix.
        assert_eq!(MuonAdjust::MatchRmsAdamw.of([16, 100]), 2.0);
        assert_eq!([[8, 2], [2, 8]].map(|shape| MuonAdjust::Original.of(shape)), [2.0, 1.0]);
        let train = TrainConfig { lr: 1e-3, muon_lr: 0.02, ..TrainConfig::default() };
        assert_eq!((train.muon_rate(), TrainConfig::default().muon_rate()), (20.0, 1.0));
    }

    #[test]
    fn muon_is_refused_where_elements_are_shared_out() {
        let train = TrainConfig { optimizer: Optimizer::Muon, shard_optimizer: true, ..TrainConfig::default() };
        let said = train.validate(&ModelConfig::default()).unwrap_err().to_string();
        assert!(said.contains("set shard_optimizer = false, or optimizer = \"adamw\""), "{said}");
        let train = TrainConfig { muon_momentum: 1.0, ..TrainConfig::default() };
        assert!(train.validate(&ModelConfig::default()).unwrap_err().to_string().starts_with("muon_momentum is 1,"));
    }

    #[test]
    fn a_decay_is_below_one_on_the_device_as_well() {
        let said = |ema_decay| {
            let train = TrainConfig { ema_decay, ..TrainConfig::default() };
            train.validate(&ModelConfig::default()).map_err(|e| e.to_string())
        };
        assert_eq!([0.0, 0.999, 0.999_999].map(said), [Ok(()), Ok(()), Ok(())]);
        for wrong in [1.0, -0.1, 1.0 - 1e-9, f64::NAN] {
            assert!(said(wrong).unwrap_err().starts_with(&format!("ema_decay is {wrong}, but must be")));
        }
    }
}
