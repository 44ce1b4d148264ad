//! AdamW (Loshchilov and Hutter, 2019) with global-norm clipping, as the official training code uses it.
//!
//! ```text
//! g <- clip factor * g      m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2
//! p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```
//! Rows of a parameter belong to *cohorts*: those appended by a growth, and all of a new layer, have their own step
//! count t and may have their own learning-rate scale, or be frozen. Columns belong to their row.

use super::stats::{STATS, Stats};
use super::{Case, Input};
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Uniform, Write};
use crate::kernel::{Kernel, parameter_block, word};
use bytemuck::Zeroable;
use std::ops::Range;

static ADAMW: Kernel = Kernel::new("adamw.wgsl", "adamw", &[Uniform, Read, Read, Write, Write, Write]);
static ADAMW_AND_COPY: Kernel =
    Kernel::new("adamw.wgsl", "adamw_and_copy", &[Uniform, Read, Read, Write, Write, Write, Write]);

/// Most cohorts of one model: the original parameters and 31 growths.
pub(crate) const MAX_COHORTS: usize = 32;
/// Most segments of one dispatch; `shaders/segments.wgsl` has the same number.
pub(crate) const MAX_SEGMENTS: usize = 256;
/// Elements that a workgroup updates at a time; the same there.
const CHUNK: usize = 1024;
/// Words of [`UpdateScalars`].
pub(crate) const UPDATE_WORDS: usize = size_of::<UpdateScalars>() / size_of::<f32>();

parameter_block! {
    /// A [`Segment`], as `shaders/segments.wgsl` has it.
    pub(crate) struct SegmentDims {
        /// of the parameter
        first: u32,
        count: u32,
        /// 2 cohort + 1 if decayed
        kind: u32,
        /// the first of the segment
        chunk: u32,
        /// first element of the gradient
        state: u32,
        /// first element of the moments
        moment: u32,
        spare_b: u32,
        spare_c: u32,
    }
}

parameter_block! {
    /// The parameter block of `shaders/segments.wgsl`.
    pub(crate) struct SegmentsDims {
        segments: u32,
        chunks: u32,
        /// Muon: multiple of the learning rate
        rate: f32,
        /// Muon: factor of the update
        adjust: f32,
        table: [SegmentDims; MAX_SEGMENTS],
    }
}

parameter_block! {
    /// One cohort in [`UpdateScalars`].
    pub struct CohortScalars {
        /// Bias correction of the first moment, 1 - b1^t.
        c1: f32,
        /// Bias correction of the second moment, 1 - b2^t.
        c2: f32,
        /// Learning-rate multiplier.
        lr_scale: f32,
        /// 1 if trained, 0 if frozen.
        trained: f32,
    }
}

parameter_block! {
    /// Scalars of one optimizer step, in a uniform block of their own that the host writes before each step.
    pub struct UpdateScalars {
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// 1 - beta1, subtracted in f64.
        one_minus_beta1: f32,
        /// 1 - beta2, subtracted in f64.
        one_minus_beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Decoupled weight decay, per unit of learning rate.
        weight_decay: f32,
        /// 1 - the decay of the moving average of the parameters, subtracted in f64; 0 without one.
        average: f32,
        /// Of each cohort; those that a model does not have are frozen.
        cohorts: [CohortScalars; MAX_COHORTS],
    }
}

/// Scalars of one optimizer step.
#[derive(Debug, Clone)]
pub struct Update {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
    /// Decay of the moving average of the parameters, where there is one.
    pub average_decay: Option<f64>,
    /// Per cohort.
    pub cohorts: Vec<CohortStep>,
}

/// What one step does to the rows of one cohort.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CohortStep {
    /// Updates of these rows including this one, from 1.
    pub t: u64,
    /// Learning-rate multiplier.
    pub lr_scale: f64,
    /// Frozen rows and their moments are left alone.
    pub frozen: bool,
}

impl Update {
    /// The words of [`UpdateScalars`].
    ///
    /// # Errors
    /// More than [`MAX_COHORTS`] cohorts.
    pub fn words(&self) -> Result<Vec<f32>> {
        if self.cohorts.len() > MAX_COHORTS {
            return Err(Error::defect(format!(
                "an update of {} cohorts, {MAX_COHORTS} are possible",
                self.cohorts.len()
            )));
        }
        // Subtracted in f64: from 0.999 rounded to f32, 1 - 0.999 would keep five of its seven digits.
        let mut scalars = UpdateScalars {
            lr: self.lr as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            average: self.average_decay.map_or(0.0, |decay| 1.0 - decay) as f32,
            ..UpdateScalars::zeroed()
        };
        for (to, cohort) in scalars.cohorts.iter_mut().zip(&self.cohorts) {
            let correction = |beta: f64| (1.0 - beta.powf(cohort.t.max(1) as f64)) as f32;
            *to = CohortScalars {
                c1: correction(self.beta1),
                c2: correction(self.beta2),
                lr_scale: cohort.lr_scale as f32,
                trained: if cohort.frozen { 0.0 } else { 1.0 },
            };
        }
        Ok(bytemuck::cast_slice(&[scalars]).to_vec())
    }
}

/// Parameters packed into one, and their gradients and moments, packed alike among each other.
#[derive(Debug, Clone, Copy)]
pub struct Trained {
    /// The parameter.
    pub parameter: Tensor,
    /// Its gradient.
    pub grad: Tensor,
    /// First moment.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
    /// The copy of the parameter that products read, where there is one, in the precision of the graph.
    pub copy: Option<Tensor>,
}

/// A range of elements of a parameter, or of many packed into one, that are updated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First element of the parameter.
    pub first: usize,
    /// First element of its gradient, of which there is none for what does not train.
    pub state: usize,
    /// First element of its moments: as of the gradient, but where they are of a share of it.
    pub moment: usize,
    /// Number of elements.
    pub n: usize,
    /// Index into [`Update::cohorts`].
    pub cohort: usize,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Whether its cohort was frozen when the update was planned. AdamW does not ask: it is told before each step.
    pub frozen: bool,
}

impl Segment {
    /// What of it lies in a piece of the parameter: in elements of that piece, and of the piece of the gradient that belongs
    /// to it.
    pub(crate) fn within(&self, piece: &Range<usize>) -> Option<Self> {
        let (first, end) = (self.first.max(piece.start), (self.first + self.n).min(piece.end));
        let state = (self.state + (first - self.first)).checked_sub(piece.start)?;
        let n = end.checked_sub(first).filter(|n| *n > 0)?;
        Some(Self { first: first - piece.start, state, moment: state, n, ..*self })
    }

    /// What of it lies in a range of the gradient, `moment` being where the moments of that range begin.
    pub(crate) fn owned(&self, of_gradient: &Range<usize>, moment: usize) -> Option<Self> {
        let (start, end) = (self.state.max(of_gradient.start), (self.state + self.n).min(of_gradient.end));
        let n = end.checked_sub(start).filter(|n| *n > 0)?;
        let (first, moment) = (self.first + start - self.state, moment + start - of_gradient.start);
        Some(Self { first, state: start, moment, n, ..*self })
    }
}

impl SegmentsDims {
    /// Of at most [`MAX_SEGMENTS`] segments, with what Muon multiplies its rate and its updates by.
    pub(crate) fn of(segments: &[Segment], [rate, adjust]: [f64; 2]) -> Self {
        let mut chunks = 0;
        let mut table = [SegmentDims::zeroed(); MAX_SEGMENTS];
        for (to, segment) in table.iter_mut().zip(segments) {
            *to = SegmentDims {
                first: word(segment.first),
                count: word(segment.n),
                kind: word(2 * segment.cohort + usize::from(segment.decay)),
                chunk: word(chunks),
                state: word(segment.state),
                moment: word(segment.moment),
                ..SegmentDims::zeroed()
            };
            chunks += segment.n.div_ceil(CHUNK);
        }
        // The search for a chunk's segment goes past the last one and must not stop there.
        table[segments.len()..].iter_mut().for_each(|unused| unused.chunk = word(chunks));
        let (rate, adjust) = (rate as f32, adjust as f32);
        Self { segments: word(segments.len()), chunks: word(chunks), rate, adjust, table }
    }

    /// How many workgroups there is work for.
    pub(crate) fn groups(&self) -> usize {
        self.chunks as usize
    }
}

/// Updates the elements of all `segments` in place; `update` is [`Update::words`], `stats` holds clip factor and flag.
pub fn adamw(g: &mut Graph, update: Tensor, stats: Tensor, trained: Trained, segments: &[Segment]) -> Result<()> {
    let Trained { parameter, grad, m, v, copy } = trained;
    for segments in segments.chunks(MAX_SEGMENTS) {
        let dims = SegmentsDims::of(segments, [1.0; 2]);
        let all = [update, stats, grad, parameter, m, v];
        let call = match copy {
            None => g.call(&ADAMW).bind(&all),
            Some(copy) => g.call(&ADAMW_AND_COPY).bind(&[&all[..], &[copy]].concat()),
        };
        call.parameters(dims).groups(dims.groups()).record()?;
    }
    Ok(())
}

fn reference(update: &Update, segments: &[Segment], x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // Statistics that f32 holds exactly.
    let words: Vec<f32> = x[1].iter().map(|&word| word as f32).collect();
    let (stats, grad) = (Stats::from_words(&words), &x[2]);
    let (mut p, mut m, mut v, mut copy) = (x[3].clone(), x[4].clone(), x[5].clone(), x[6].clone());
    for segment in segments {
        let cohort = update.cohorts[segment.cohort];
        let lr = update.lr * cohort.lr_scale;
        let corrections = [update.beta1, update.beta2].map(|b| 1.0 - b.powf(cohort.t as f64));
        for at in (0..segment.n).filter(|_| stats.is_finite() && !cohort.frozen) {
            let (i, of_p) = (segment.moment + at, segment.first + at);
            let g = grad[segment.state + at] * f64::from(stats.clip_factor);
            m[i] = update.beta1 * m[i] + (1.0 - update.beta1) * g;
            v[i] = update.beta2 * v[i] + (1.0 - update.beta2) * g * g;
            p[of_p] *= if segment.decay { 1.0 - lr * update.weight_decay } else { 1.0 };
            p[of_p] -= lr * (m[i] / corrections[0]) / ((v[i] / corrections[1]).sqrt() + update.eps);
            copy[of_p] = p[of_p];
        }
    }
    vec![p, m, v, copy]
}

/// The scalars of the cases here and in the files whose kernels read the same block.
pub(super) fn scalars_of_cases(cohorts: Vec<CohortStep>) -> Update {
    Update { lr: 0.03, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, average_decay: None, cohorts }
}

pub(super) fn cases() -> Vec<Case> {
    let cohorts = vec![
        CohortStep { t: 57, lr_scale: 1.0, frozen: false },
        CohortStep { t: 1, lr_scale: 0.5, frozen: false },
        CohortStep { t: 9, lr_scale: 1.0, frozen: true },
    ];
    let update = scalars_of_cases(cohorts);
    // Lengths of the segments, one after the other, of cohorts 0, 1, 2, 0, ...; before the first lie elements of the
    // parameter that do not train; where there are such, there is a copy of the parameter as well.
    let case_after = move |untrained: usize, name: &str, lengths: &[usize], decay: &'static [bool], finite: f32| {
        let copied = untrained > 0;
        let mut segments: Vec<Segment> = Vec::new();
        let mut n = 0;
        for (i, &length) in lengths.iter().enumerate() {
            segments.push(Segment {
                first: untrained + n,
                state: n,
                moment: n,
                n: length,
                cohort: i % 3,
                decay: decay[i % decay.len()],
                frozen: false,
            });
            n += length;
        }
        let stats = Stats { loss: 2.0, norm: 3.0, clip_factor: 0.25, finite, ..Stats::zeroed() };
        let second = crate::rng::Rng::named(1, crate::rng::Stream::Test, name).normals(n, 0.3);
        let (update, again, build_segments) = (update.clone(), update.clone(), segments.clone());
        Case {
            op: "adamw",
            name: name.to_string(),
            inputs: vec![
                Input::floats("update", &[UPDATE_WORDS], update.words().unwrap_or_default()),
                Input::floats("stats", &[STATS], stats.words().to_vec()),
                Input::normal("grad", &[n], 1.0).without_gradient(),
                Input::normal("p", &[untrained + n], 1.0).without_gradient(),
                Input::normal("m", &[n], 0.3).without_gradient(),
                Input::floats("v", &[n], second.iter().map(|x| x * x).collect()),
                Input::normal("copy", &[untrained + n], 1.0).without_gradient(),
            ],
            build: Box::new(move |g, t| {
                let copy = t.get(6).copied().filter(|_| copied);
                let trained = Trained { parameter: t[3], grad: t[2], m: t[4], v: t[5], copy };
                adamw(g, t[0], t[1], trained, &build_segments)?;
                Ok([t[3], t[4], t[5]].into_iter().chain(copy).collect())
            }),
            reference: Box::new(move |x| reference(&again, &segments, x)),
            gradient: false,
            ..Case::default()
        }
    };
    let case = |name: &str, lengths: &[usize], decay: &'static [bool], finite: f32| {
        case_after(0, name, lengths, decay, finite)
    };
    let many: Vec<usize> = (0..300).map(|i| 1 + i * i % 37).collect();
    vec![
        case("1 decayed", &[1], &[true], 1.0),
        case("300, not decayed", &[300], &[false], 1.0),
        case("three cohorts, one frozen", &[257, 43, 121], &[true], 1.0),
        case("long and short, some decayed", &[1024, 2500, 1, 1025, 3], &[true, false], 1.0),
        case("more segments than a dispatch takes", &many, &[false, true], 1.0),
        case_after(77, "the last rows of a parameter", &[1030, 40, 9, 300], &[true], 1.0),
        case("flag down: nothing written", &[300], &[true], 0.0),
        case_after(5, "three cohorts, one frozen, with a copy", &[257, 43, 121], &[true], 1.0),
        case_after(5, "flag down: no copy written", &[300], &[true], 0.0),
    ]
}

/// None: the workgroups are as many whatever the size.
pub(super) fn large_cases() -> Vec<Case> {
    Vec::new()
}
