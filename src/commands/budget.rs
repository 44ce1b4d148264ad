//! How long a run trains, by what it reads or by the clock: `--tokens`, `--epochs` and `--max-time` in place of steps. The
//! learning rate follows, because they become `train.max_steps` and `train.max_seconds`.

use clap::Args;

use crate::config::{RunConfig, TrainConfig};
use crate::error::{Error, Result};

/// Most tokens of a run: more than there are.
const MOST_TOKENS: u64 = 1 << 50;

/// What a run may read.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Budget {
    /// Train until so many tokens are read, in place of --steps: 300000, 10M or 1.5B.
    #[arg(
        long = "tokens",
        value_name = "N",
        value_parser = |text: &str| super::tokens(text, MOST_TOKENS),
        conflicts_with_all = ["steps", "epochs"]
    )]
    tokens: Option<u64>,
    /// Train until the training data are read so many times, such as 0.5 or 3, in place of --steps.
    #[arg(long, value_name = "N", value_parser = super::number, conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Train for so long, such as 300s, 5m or 1h30m, in place of a number of steps, or at most beside one. Counted from the
    /// first step to the last; the learning rate falls with the time.
    #[arg(long, value_name = "TIME", value_parser = super::seconds)]
    max_time: Option<f64>,
}

impl Budget {
    /// Whether it takes the data to know how long that is.
    pub(super) fn needs_data(self) -> bool {
        self.epochs.is_some()
    }

    /// Sets the length of the whole run; `names_steps` where that is said in steps besides. `data` is how many tokens are
    /// trained on, where that is known: with epochs it must be.
    ///
    /// # Errors
    /// A batch that is none, and a number of epochs that is none.
    pub(super) fn set_length(self, config: &mut RunConfig, names_steps: bool, data: Option<usize>) -> Result<()> {
        if let Some(seconds) = self.max_time {
            config.train.max_seconds = seconds;
            if !names_steps {
                config.train.max_steps = TrainConfig::NO_LIMIT;
            }
        }
        let update = config.train.batch_size * config.train.grad_accum(&config.model)? * config.model.seq_length;
        let tokens = match (self.tokens, self.epochs, data) {
            (Some(tokens), ..) => tokens,
            (None, Some(epochs), Some(data)) => {
                let tokens = epochs * data as f64;
                if !(epochs > 0.0 && tokens <= MOST_TOKENS as f64) {
                    return Err(Error::usage(format!(
                        "--epochs is {epochs}, but must be above 0 and, times the {data} tokens of the data, at most \
                         {MOST_TOKENS}: give one such as 3"
                    )));
                }
                tokens.ceil() as u64
            }
            _ => return Ok(()),
        };
        config.train.max_steps = usize::try_from(tokens.div_ceil(update as u64)).unwrap_or(usize::MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_update_reaches_the_budget() {
        // Updates of 12 x 64 tokens.
        let steps = |tokens, epochs| {
            let mut config = RunConfig::default();
            let budget = Budget { tokens, epochs, max_time: None };
            budget.set_length(&mut config, false, Some(10_000)).map(|()| config.train.max_steps)
        };
        assert_eq!(steps(Some(768), None).unwrap(), 1);
        assert_eq!(steps(Some(769), None).unwrap(), 2);
        assert_eq!(steps(None, Some(2.0)).unwrap(), 27);
        assert_eq!(steps(None, None).unwrap(), RunConfig::default().train.max_steps);
        for bad in [0.0, -1.0, f64::NAN, 1e300] {
            assert!(steps(None, Some(bad)).unwrap_err().to_string().contains("--epochs is"));
        }
    }

    #[test]
    fn time_stands_in_place_of_steps_unless_both_are_given() {
        let length = |names_steps, tokens| {
            let mut config = RunConfig::default();
            let budget = Budget { tokens, epochs: None, max_time: Some(60.0) };
            budget.set_length(&mut config, names_steps, None).unwrap();
            config.train.length()
        };
        assert_eq!(length(false, None), "60 s");
        assert_eq!(length(true, None), "2000 steps or 60 s");
        assert_eq!(length(false, Some(769)), "2 steps or 60 s");
    }
}
