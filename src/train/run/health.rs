//! Whether the numbers of a run are as they should be, and what becomes of it where they are not: by numbers alone,
//! without a device.
//!
//! A step is bad where its loss or gradients are not finite, or where its loss is a [`spike`](super::spike). What
//! follows is `train.on_bad_steps`: by default the run goes back to its last checkpoint after three steps in a row that
//! were not finite, or after one spike. In mixed precision a step may only have overflowed; that is no bad step as long
//! as a smaller loss scale may put it right.

use super::spike::{LossStatistics, Spike};
use crate::config::{BadSteps, TrainConfig};

/// Steps in a row that are not finite before a run goes back.
const MAX_BAD_STEPS: u32 = 3;

/// What a step showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Seen {
    /// Loss and gradients were finite; the loss in nats per token.
    Finite(f64),
    /// They were not, and the next step has a smaller loss scale.
    Overflow,
    /// They were not.
    NotFinite,
}

/// What becomes of a run after a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It goes on.
    Go,
    /// It goes on, although the step was not as it should be; with a sentence where it updated the model.
    Skip(Option<String>),
    /// It goes back to its last checkpoint: see [`Health::take_bad`].
    Rollback,
    /// It ends.
    Stop(Fault),
}

/// What was wrong with the step that ends a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// Its loss or gradients were not finite.
    NotFinite,
    /// Its loss was a spike, in words.
    Spike(String),
}

/// What sends a run back to its last checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bad {
    /// The step that showed it.
    pub step: u64,
    /// A clause for messages.
    pub why: String,
    /// Whether all numbers were finite.
    pub finite: bool,
}

impl Bad {
    /// The last of three steps, or what it made of the model.
    pub(crate) fn not_finite(step: u64) -> Self {
        let why = format!("loss or gradients were not finite for three steps in a row, the last at step {}", step + 1);
        Self { step, why, finite: false }
    }
}

/// How the steps of a run went.
#[derive(Debug)]
pub(crate) struct Health {
    on_bad_steps: BadSteps,
    spike_zscore: f64,
    /// Steps in a row that were not finite.
    bad_in_a_row: u32,
    /// The last step whose numbers were as they should be, with none before it that sends the run back.
    last_good: Option<u64>,
    bad: Option<Bad>,
}

impl Health {
    /// Of a run that begins.
    pub(crate) fn new(train: &TrainConfig) -> Self {
        let TrainConfig { on_bad_steps, spike_zscore, .. } = *train;
        Self { on_bad_steps, spike_zscore, bad_in_a_row: 0, last_good: None, bad: None }
    }

    /// What becomes of the run after `step`, the one after the last. A loss that is no spike is added to `losses`.
    pub(crate) fn judge(&mut self, step: u64, seen: Seen, losses: &mut LossStatistics) -> Verdict {
        match seen {
            Seen::Overflow => Verdict::Skip(None),
            Seen::NotFinite => {
                self.bad_in_a_row += 1;
                match self.on_bad_steps {
                    BadSteps::Stop => Verdict::Stop(Fault::NotFinite),
                    BadSteps::Rollback if self.bad_in_a_row >= MAX_BAD_STEPS => self.go_back(Bad::not_finite(step)),
                    BadSteps::Rollback | BadSteps::Skip => Verdict::Skip(None),
                }
            }
            Seen::Finite(loss) => {
                self.bad_in_a_row = 0;
                match losses.add_unless_spike(loss, self.spike_zscore) {
                    None => self.good(step),
                    Some(spike) => self.spiked(step, loss, spike, losses),
                }
            }
        }
    }

    fn good(&mut self, step: u64) -> Verdict {
        // A step that was submitted before it was known that one went bad is not past that one.
        if self.bad.is_none() {
            self.last_good = Some(step);
        }
        Verdict::Go
    }

    fn spiked(&mut self, step: u64, loss: f64, Spike { mean, zscore }: Spike, losses: &mut LossStatistics) -> Verdict {
        let why = format!(
            "the loss of step {} is {loss:.4}, {zscore:.1} standard deviations above its mean of {mean:.4} \
             (train.spike_zscore is {})",
            step + 1,
            self.spike_zscore
        );
        match self.on_bad_steps {
            BadSteps::Rollback => self.go_back(Bad { step, why, finite: true }),
            BadSteps::Skip => {
                // What the run goes on with is usual in the end: else it would be told at every step.
                losses.add(loss);
                Verdict::Skip(Some(why))
            }
            BadSteps::Stop => Verdict::Stop(Fault::Spike(why)),
        }
    }

    /// Sends the run back to its last checkpoint. Of several reasons the first counts.
    pub(crate) fn go_back(&mut self, bad: Bad) -> Verdict {
        self.bad.get_or_insert(bad);
        Verdict::Rollback
    }

    /// Whether a run goes back where steps are bad.
    pub(crate) fn may_go_back(&self) -> bool {
        self.on_bad_steps == BadSteps::Rollback
    }

    /// Whether the run is to go back.
    pub(crate) fn is_bad(&self) -> bool {
        self.bad.is_some()
    }

    /// Whether bad steps may be about to send the run back: what is saved now, it would go back to.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.bad_in_a_row > 0 && self.may_go_back()
    }

    /// Why the run is to go back.
    pub(crate) fn take_bad(&mut self) -> Option<Bad> {
        self.bad.take()
    }

    /// The last good step.
    pub(crate) fn last_good(&self) -> Option<u64> {
        self.last_good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{Finite, NotFinite, Overflow};

    fn health(on_bad_steps: BadSteps) -> Health {
        Health::new(&TrainConfig { on_bad_steps, spike_zscore: 6.0, ..TrainConfig::default() })
    }

    /// Losses that vary a little around 2.
    fn usual() -> LossStatistics {
        let mut losses = LossStatistics::default();
        (0..80).for_each(|i| losses.add(2.0 + 0.01 * f64::from(i % 3)));
        losses
    }

    /// The verdicts on steps from 10 on.
    fn judged(health: &mut Health, seen: &[Seen]) -> Vec<Verdict> {
        let mut losses = usual();
        (10..).zip(seen).map(|(step, seen)| health.judge(step, *seen, &mut losses)).collect()
    }

    #[test]
    fn three_steps_in_a_row_go_back_and_fewer_are_skipped() {
        let skip = Verdict::Skip(None);
        let mut health = health(BadSteps::Rollback);
        let seen = [NotFinite, NotFinite, Finite(2.0), NotFinite, NotFinite, NotFinite, Finite(2.0), NotFinite];
        let verdicts = judged(&mut health, &seen);
        let go = Verdict::Go;
        let (back, again) = (Verdict::Rollback, skip.clone());
        assert_eq!(verdicts, [skip.clone(), skip.clone(), go.clone(), skip.clone(), skip.clone(), back, go, again]);
        // The good step after it was submitted before, and is not past it.
        assert_eq!((health.last_good(), health.is_in_doubt()), (Some(12), true));
        assert_eq!(health.take_bad(), Some(Bad::not_finite(15)));
        assert!(!health.is_bad());
    }

    #[test]
    fn the_first_reason_to_go_back_counts() {
        let mut health = health(BadSteps::Rollback);
        assert_eq!(judged(&mut health, &[Finite(5.0), Finite(9.0)]), [Verdict::Rollback, Verdict::Rollback]);
        let bad = health.take_bad().unwrap();
        assert!(bad.finite && bad.step == 10 && bad.why.starts_with("the loss of step 11 is 5.0000, "), "{bad:?}");
    }

    #[test]
    fn a_run_that_stops_does_so_at_once() {
        let mut health = health(BadSteps::Stop);
        assert_eq!(judged(&mut health, &[NotFinite]), [Verdict::Stop(Fault::NotFinite)]);
        let verdicts = judged(&mut health, &[Finite(5.0)]);
        assert!(matches!(&verdicts[..], [Verdict::Stop(Fault::Spike(why))] if why.contains("train.spike_zscore is 6")));
    }

    #[test]
    fn a_run_that_skips_goes_on_and_gets_used_to_a_spike() {
        let mut health = health(BadSteps::Skip);
        assert_eq!(judged(&mut health, &[NotFinite; 5]), [const { Verdict::Skip(None) }; 5]);
        assert!(!health.is_in_doubt(), "what is saved now, it does not go back to");
        let mut losses = usual();
        let before = losses.count;
        let verdict = health.judge(20, Finite(5.0), &mut losses);
        assert!(matches!(verdict, Verdict::Skip(Some(_))) && losses.count == before + 1);
        assert_eq!(health.last_good(), None);
    }

    #[test]
    fn an_overflow_of_mixed_precision_is_neither_bad_nor_good() {
        for rule in [BadSteps::Rollback, BadSteps::Skip, BadSteps::Stop] {
            let mut health = health(rule);
            assert_eq!(judged(&mut health, &[Overflow; 9]), [const { Verdict::Skip(None) }; 9]);
            assert_eq!((health.is_in_doubt(), health.is_bad(), health.last_good()), (false, false, None));
        }
        // It does not make bad steps before it good ones either.
        let mut health = health(BadSteps::Rollback);
        let verdicts = judged(&mut health, &[NotFinite, NotFinite, Overflow, NotFinite]);
        assert_eq!(verdicts[3], Verdict::Rollback);
    }
}
