//! Whether a GPU's clocks are up, by how fast a fixed kernel ever was on it.

use crate::error::Result;

/// Clocks are up where a run takes at most so many times the shortest one, ...
const UP: f64 = 1.1;
/// ... so often in a row.
const READINGS: u32 = 2;
/// Until then, or where nothing is known: seconds of work at least, ...
const LEAST: f64 = 1.0;
/// ... without a reading that is better by this share ...
const BETTER: f64 = 0.01;
/// ... for so many seconds, ...
const SETTLED: f64 = 0.5;
/// ... and seconds at most.
const MOST: f64 = 2.0;

/// One reading of the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Seconds of a run.
    pub(super) run: f64,
    /// Seconds that the reading took.
    pub(super) spent: f64,
}

/// How fast the kernel was so far.
#[derive(Debug, Default)]
pub(super) struct ClockSpeed(Option<f64>);

impl ClockSpeed {
    /// Takes readings until clocks are up; the seconds of a run then. A device that stays slower than it was for as long as
    /// clocks may take to rise has become slower, as laptops do: what it does now is the measure from then on.
    pub(super) fn rise(&mut self, mut reading: impl FnMut() -> Result<Reading>) -> Result<f64> {
        let (mut spent, mut up, mut best, mut improved) = (0.0, 0, f64::INFINITY, 0.0);
        loop {
            let now = reading()?;
            spent += now.spent;
            up = if self.0.is_some_and(|known| now.run <= UP * known) { up + 1 } else { 0 };
            if up >= READINGS {
                self.0 = self.0.map(|known| known.min(now.run));
                return Ok(now.run);
            }
            if now.run < (1.0 - BETTER) * best {
                (best, improved) = (now.run, spent);
            }
            if spent >= MOST || spent >= LEAST && spent - improved >= SETTLED {
                self.0 = Some(best.min(now.run));
                return Ok(now.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of one reading.
    const READING: f64 = 4e-3;

    /// Plays readings of 4 ms by the time that was spent, and says how much was.
    fn play(seen: &mut ClockSpeed, run: impl Fn(f64) -> f64) -> (f64, f64) {
        let mut spent = 0.0;
        let result = seen.rise(|| {
            spent += READING;
            Ok(Reading { run: run(spent), spent: READING })
        });
        (result.unwrap(), spent)
    }

    #[test]
    fn a_steady_low_clock_is_not_taken_for_a_high_one() {
        let mut seen = ClockSpeed::default();
        // Steady at 345 MHz for 0.9 s, then at 1980.
        let late = |spent: f64| if spent < 0.9 { 1980.0 / 345.0 } else { 1.0 };
        let (run, spent) = play(&mut seen, late);
        assert!(run == 1.0 && (1.39..1.45).contains(&spent), "{run} after {spent}");
        // Now that it is known, a drop is noticed, and a rise.
        let (run, spent) = play(&mut seen, |spent| if spent < 0.6 { 5.7 } else { 1.02 });
        assert!(run == 1.02 && (0.6..0.62).contains(&spent), "{run} after {spent}");
        // Nothing to do.
        assert_eq!(play(&mut seen, |_| 1.04), (1.04, 2.0 * READING));
        assert_eq!(seen.0, Some(1.0));
    }

    #[test]
    fn clocks_that_stay_low_or_never_settle_end_the_wait() {
        let mut seen = ClockSpeed(Some(1.0));
        // Throttled.
        let (run, spent) = play(&mut seen, |_| 1.2);
        assert!(run == 1.2 && (0.99..1.01).contains(&spent), "{run} after {spent}");
        assert_eq!(play(&mut seen, |_| 1.2), (1.2, 2.0 * READING));
        // Always a little better.
        let (_, spent) = play(&mut ClockSpeed::default(), |spent| 10.0 - 4.0 * spent);
        assert!((1.99..2.01).contains(&spent), "{spent}");
        assert!(ClockSpeed::default().rise(|| Err(crate::error::Error::lost("gone"))).is_err());
    }
}
