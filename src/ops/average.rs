//! Exponential moving average of the parameters (Polyak averaging with a decay): e <- e + (1 - decay) (p - e).
//!
//! Kept in f32 on the device, and updated after each step that changed the parameters. The decay is one of the scalars of the
//! step, [`super::adamw::Update::average_decay`].

use super::adamw::{UPDATE_WORDS, Update, scalars_of_cases};
use super::stats::{STATS, Stats};
use super::{Case, Input};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Kernel, parameter_block, word};
use bytemuck::Zeroable;

static AVERAGE: Kernel = Kernel::new("average.wgsl", "average", &[Uniform, Read, Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/average.wgsl`.
    pub(crate) struct AverageDims {
        /// Elements.
        n: u32,
    }
}

/// Moves the averages `average` towards `parameter`, of the same length; `update` is [`Update::words`], `stats` holds the flag
/// of the step.
pub fn average(g: &mut Graph, update: Tensor, stats: Tensor, parameter: Tensor, average: Tensor) -> Result<()> {
    let n = g.shape(parameter).iter().product::<usize>();
    let call = g.call(&AVERAGE).bind(&[update, stats, parameter, average]);
    call.parameters(AverageDims { n: word(n) }).groups(n.div_ceil(256)).record()
}

fn case(name: &str, n: usize, finite: f32) -> Case {
    let update = Update { average_decay: Some(0.999), ..scalars_of_cases(Vec::new()) };
    let stats = Stats { loss: 2.0, norm: 3.0, clip_factor: 0.25, finite, ..Stats::zeroed() };
    let kept = if finite == 1.0 { 0.999 } else { 1.0 };
    Case {
        op: "average",
        name: name.to_owned(),
        inputs: vec![
            Input::floats("update", &[UPDATE_WORDS], update.words().unwrap_or_default()),
            Input::floats("stats", &[STATS], stats.words().to_vec()),
            Input::parameter("parameter", &[n], 1.0).without_gradient(),
            Input::parameter("average", &[n], 1.0).without_gradient(),
        ],
        build: Box::new(|g, t| {
            average(g, t[0], t[1], t[2], t[3])?;
            Ok(vec![t[3]])
        }),
        reference: Box::new(move |x| {
            vec![x[2].iter().zip(&x[3]).map(|(p, e)| kept * e + (1.0 - kept) * p).collect()]
        }),
        gradient: false,
        ..Case::default()
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![case("1", 1, 1.0), case("257", 257, 1.0), case("flag down: nothing written", 300, 0.0)]
}

/// More than 65,535 workgroups.
pub(super) fn large_cases() -> Vec<Case> {
    vec![case("16,777,219", 65_536 * 256 + 3, 1.0)]
}
