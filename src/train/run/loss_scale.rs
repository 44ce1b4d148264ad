//! Dynamic loss scaling (Micikevicius et al., 2018), with the constants of PyTorch's `GradScaler`.
//!
//! f16 holds nothing below 6e-8, and gradients are often smaller. So the loss is multiplied by a scale before the
//! backward, and the update divides by it. Where that overflows, the finite flag goes down, AdamW writes nothing and
//! the scale is halved; after 2000 good steps it is doubled. All of it is in the checkpoint: a resumed run
//! goes on with the same scale. Scales are powers of two, so scaling by itself changes no bit of an f32 gradient.

use serde::{Deserialize, Serialize};

/// Where dynamic loss scaling stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// Factor on the loss, a power of two.
    pub scale: f32,
    /// Steps since it last changed.
    pub good_steps: u64,
}

/// Scale at the start.
const INITIAL: f32 = 65_536.0;
/// Largest scale.
const LARGEST: f32 = 16_777_216.0;
/// Good steps before the scale is doubled.
const INTERVAL: u64 = 2000;

/// The scale of a new run.
pub(crate) fn initial(mixed: bool) -> LossScale {
    LossScale { scale: if mixed { INITIAL } else { 1.0 }, good_steps: 0 }
}

/// The scale after a step. `None` where the step was not finite and no smaller scale could help.
pub(crate) fn after(scale: LossScale, mixed: bool, finite: bool) -> Option<LossScale> {
    let LossScale { scale, good_steps } = scale;
    match (mixed, finite) {
        (false, true) => Some(LossScale { scale, good_steps }),
        (true, true) if good_steps + 1 >= INTERVAL => {
            Some(LossScale { scale: (scale * 2.0).min(LARGEST), good_steps: 0 })
        }
        (true, true) => Some(LossScale { scale, good_steps: good_steps + 1 }),
        (true, false) if scale > 1.0 => Some(LossScale { scale: scale / 2.0, good_steps: 0 }),
        (_, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_on_overflow_down_to_one_and_doubles_after_many_good_steps() {
        let mut scale = initial(true);
        for _ in 0..16 {
            scale = after(scale, true, false).unwrap();
        }
        assert_eq!((scale.scale, after(scale, true, false)), (1.0, None));
        for _ in 0..INTERVAL {
            scale = after(scale, true, true).unwrap();
        }
        assert_eq!(scale, LossScale { scale: 2.0, good_steps: 0 });
        for _ in 0..100 * INTERVAL {
            scale = after(scale, true, true).unwrap();
        }
        assert_eq!(scale.scale, LARGEST);
    }

    #[test]
    fn f32_is_never_scaled() {
        let scale = initial(false);
        assert_eq!((after(scale, false, true), after(scale, false, false)), (Some(scale), None));
    }
}
