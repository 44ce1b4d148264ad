//! Every arm against the reference at equal tokens, equal FLOPs, and equal FLOPs after the last growth.
//!
//! At each point an arm is represented by the run that ends there, or else by the shortest one that passes it, read
//! between its evaluations. Which of the two is said every time: in the middle of a schedule the learning rate has not
//! come down yet, which puts the run at a disadvantage. What no run reaches is not compared.

use super::budget::Axis;
use super::curve;
use super::file::Points;
use super::results::{Findings, StudyCase};
use super::statistics::{Interval, LEVEL, deviation, mean};

/// Where in its run a value was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// At the end of its schedule; the end falls short of the point by this share of it, less than one step.
    End(f64),
    /// In the middle, after this share of the steps.
    Middle(f64),
}

/// An arm at a point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// Where it was read.
    pub place: Place,
    /// Validation loss by seed.
    pub losses: Vec<(u64, f64)>,
}

impl Reading {
    /// The losses alone.
    pub(crate) fn values(&self) -> Vec<f64> {
        self.losses.iter().map(|(_, loss)| *loss).collect()
    }

    /// Their mean.
    pub(crate) fn mean(&self) -> Option<f64> {
        mean(&self.values())
    }

    /// Their standard deviation.
    pub(crate) fn deviation(&self) -> Option<f64> {
        deviation(&self.values())
    }
}

/// One arm at one point, against the reference.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Index of the arm.
    pub arm: usize,
    /// `None` where no run of the arm reaches the point.
    pub reading: Option<Reading>,
    /// Arm minus reference over the seeds that both have; `None` for the reference itself, or without such seeds.
    pub difference: Option<Interval>,
    /// Whether 0 is still outside when the confidence is spread over all comparisons (Bonferroni).
    pub survives: bool,
}

/// What a row allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// No run of the arm reaches the point.
    NotReached,
    /// No seed in common with the reference.
    NoPair,
    /// One seed in common, which gives no interval.
    OnePair,
    /// The interval holds 0.
    NoDifference,
    /// The interval is below 0: a lower loss.
    Better,
    /// The interval is above 0.
    Worse,
}

impl Row {
    /// Where the arm was read.
    pub(crate) fn place(&self) -> Option<Place> {
        self.reading.as_ref().map(|reading| reading.place)
    }

    /// The difference with the ends of its interval, where it has one.
    pub(crate) fn interval(&self) -> Option<(Interval, (f64, f64))> {
        self.difference.and_then(|difference| Some((difference, difference.ends?)))
    }

    /// What the interval allows to say.
    pub(crate) fn finding(&self) -> Finding {
        match (&self.reading, self.interval(), self.difference) {
            (None, ..) => Finding::NotReached,
            (_, Some((_, (_, high))), _) if high < 0.0 => Finding::Better,
            (_, Some((_, (low, _))), _) if low > 0.0 => Finding::Worse,
            (_, Some(_), _) => Finding::NoDifference,
            (_, None, Some(_)) => Finding::OnePair,
            (_, None, None) => Finding::NoPair,
        }
    }
}

/// All arms at one point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// What is equal.
    pub axis: Axis,
    /// How much of it.
    pub point: f64,
    /// One row for each arm, in the order of the file.
    pub rows: Vec<Row>,
}

/// All comparisons of a study.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparisons {
    /// One for each point.
    pub points: Vec<Comparison>,
    /// Differences with an interval.
    pub count: usize,
}

impl Comparisons {
    /// Every arm at every point.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.points.iter().flat_map(|comparison| &comparison.rows)
    }

    /// How often there is such a finding.
    pub(crate) fn count_of(&self, finding: Finding) -> usize {
        self.rows().filter(|row| row.finding() == finding).count()
    }
}

/// Most points of [`Axis::MarginalFlops`], and how much larger the next one is than the one before.
const MOST_POINTS: usize = 3;
const NEXT_POINT: f64 = 1.02;

/// Where arms are compared: on each axis at the points that were given, or else at the usual ones.
pub(crate) fn points(cases: &[StudyCase], reference: usize, given: &Points) -> Vec<(Axis, f64)> {
    let on = |axis: Axis| {
        let given = given.on(axis);
        let points = if given.is_empty() { usual_points(cases, reference, axis) } else { given.to_vec() };
        points.into_iter().map(move |point| (axis, point))
    };
    Axis::ALL.into_iter().flat_map(on).collect()
}

/// The points at which arms are compared where nobody says otherwise: each end of the reference in tokens and FLOPs,
/// but for those that were set by what comes after growth, which are points of that only; and for what comes after growth the ends of the growing arms at their shortest, where they differ by more than 2 %.
fn usual_points(cases: &[StudyCase], reference: usize, axis: Axis) -> Vec<f64> {
    let ends = |arm: usize| cases.iter().filter(move |case| case.arm == arm).map(|case| case.end(axis));
    if axis != Axis::MarginalFlops {
        let set = |case: &&StudyCase| case.arm == reference && case.axis != Axis::MarginalFlops;
        let mut points: Vec<f64> = cases.iter().filter(set).map(|case| case.end(axis)).collect();
        points.sort_by(f64::total_cmp);
        points.dedup();
        return points;
    }
    let mut growing: Vec<usize> =
        cases.iter().filter(|case| !case.timeline.growth_steps.is_empty()).map(|case| case.arm).collect();
    growing.dedup();
    let mut shortest: Vec<f64> = growing.into_iter().map(|arm| ends(arm).fold(f64::INFINITY, f64::min)).collect();
    shortest.sort_by(f64::total_cmp);
    let mut points: Vec<f64> = Vec::new();
    for end in shortest.into_iter().filter(|end| *end > 0.0) {
        if points.len() < MOST_POINTS && points.last().is_none_or(|last| end > NEXT_POINT * last) {
            points.push(end);
        }
    }
    points
}

/// Compares.
pub(crate) fn compare(findings: &Findings) -> Comparisons {
    let points = findings.points.iter().map(|(axis, point)| at(findings, *axis, *point)).collect();
    let mut all = Comparisons { points, count: 0 };
    all.count = all.rows().filter(|row| row.interval().is_some()).count();
    for Comparison { axis, point, rows } in &mut all.points {
        let reference = reading(findings, findings.reference, *axis, *point);
        for row in rows {
            let strict = 1.0 - (1.0 - LEVEL) / f64::from(u32::try_from(all.count).unwrap_or(u32::MAX)).max(1.0);
            let pairs = differences(row.reading.as_ref(), reference.as_ref());
            row.survives = row.difference.is_some() && Interval::of(&pairs, strict).is_some_and(|i| i.excludes_zero());
        }
    }
    all
}

fn at(findings: &Findings, axis: Axis, point: f64) -> Comparison {
    let reference = reading(findings, findings.reference, axis, point);
    let row = |arm: usize| {
        let reading = reading(findings, arm, axis, point);
        let pairs = differences(reading.as_ref(), reference.as_ref());
        let difference = Interval::of(&pairs, LEVEL).filter(|_| arm != findings.reference);
        Row { arm, reading, difference, survives: false }
    };
    Comparison { axis, point, rows: (0..findings.arms.len()).map(row).collect() }
}

/// Arm minus reference for the seeds that both have.
fn differences(arm: Option<&Reading>, reference: Option<&Reading>) -> Vec<f64> {
    let (Some(arm), Some(reference)) = (arm, reference) else { return Vec::new() };
    let partner = |seed: u64| reference.losses.iter().find(|(other, _)| *other == seed).map(|(_, loss)| *loss);
    arm.losses.iter().filter_map(|(seed, loss)| Some(loss - partner(*seed)?)).collect()
}

/// What an arm has at a point: of each seed the run that ends there, or else one that went on, read on its way. Seeds
/// that grew at different steps, as plateaus have it, are in different cases.
fn reading(findings: &Findings, arm: usize, axis: Axis, point: f64) -> Option<Reading> {
    let cases = findings.cases_of(arm);
    // An end is never before the point by a whole step, or one more step would have been taken.
    let distance = |case: &StudyCase| (case.end(axis) - point).abs();
    let (mut ends, others): (Vec<&StudyCase>, Vec<&StudyCase>) =
        cases.into_iter().partition(|case| distance(case) < case.timeline.last_step(axis));
    ends.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let (mut losses, mut taken): (Vec<(u64, f64)>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut short, mut middle) = (0.0_f64, None);
    for case in ends {
        let before = losses.len();
        losses.extend(case.final_losses().into_iter().filter(|(seed, _)| !taken.contains(seed)));
        if losses.len() > before {
            short = short.max(1.0 - case.end(axis) / point);
        }
        taken.extend(case.runs.iter().map(|run| run.seed));
    }
    for case in others.into_iter().filter(|case| case.end(axis) > point) {
        for (seed, run) in case.measured().filter(|(seed, _)| !taken.contains(seed)) {
            if let Some(loss) = curve::at(&run.curve(&case.timeline, axis), point).filter(|loss| loss.is_finite()) {
                losses.push((seed, loss));
                let done = share_done(case, axis, point);
                middle = Some(middle.map_or(done, |least: f64| least.min(done)));
            }
        }
        taken.extend(case.runs.iter().map(|run| run.seed));
    }
    losses.sort_by_key(|(seed, _)| *seed);
    let place = middle.map_or(Place::End(short), Place::Middle);
    Some(Reading { place, losses }).filter(|reading| !reading.losses.is_empty())
}

/// Share of the steps of a case before a point.
fn share_done(case: &StudyCase, axis: Axis, point: f64) -> f64 {
    let position = |step: u64| case.timeline.at(axis, step).unwrap_or(-1.0);
    let before = super::budget::most_steps(point, case.steps, position);
    before as f64 / case.steps.max(1) as f64
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::budget::Timeline;
    use super::super::results::{ArmResult, Measured, Run};
    use super::*;

    /// Loss of a step, run and seed.
    fn run(steps: u64, seed: u64, better: f64) -> Run {
        let losses = (0..=steps).step_by(2).map(|s| (s, 4.0 - s as f64 * 0.1 - better + seed as f64 * 0.01)).collect();
        Run { seed, rate: 0.1, measured: Some(Measured { losses, wall_seconds: 1.0, ..Measured::default() }) }
    }

    fn case(arm: usize, steps: u64, grows: Option<u64>, better: f64) -> StudyCase {
        let flops_per_step = if grows.is_some() { vec![5, 10] } else { vec![10] };
        let timeline = Timeline { tokens_per_step: 100, growth_steps: grows.into_iter().collect(), flops_per_step };
        let runs = (1..=3).map(|seed| run(steps, seed, better + 0.001 * (seed * seed) as f64 * arm as f64)).collect();
        StudyCase { arm, length: "some".into(), axis: Axis::Tokens, steps, timeline, parameters: [1, 2], runs }
    }

    /// A reference of ten steps, one that grows at five and ends at equal tokens and at equal FLOPs, and a short one.
    pub(crate) fn findings() -> Findings {
        let arm = |name: &str| ArmResult { name: name.into(), models: Vec::new(), rate: 0.1, trials: Vec::new() };
        let cases =
            vec![case(0, 10, None, 0.0), case(1, 10, Some(4), 0.5), case(1, 12, Some(4), 0.5), case(2, 4, None, 0.0)];
        let points = points(&cases, 0, &Points::default());
        Findings {
            title: "Study".into(),
            arms: ["base", "grown & <new>", "short"].map(arm).into(),
            cases,
            reference: 0,
            points,
            data: "a <set>".into(),
            entropy_floor: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn arms_meet_at_the_ends_of_the_reference_and_after_growth() {
        let found = findings();
        assert_eq!(found.points, [(Axis::Tokens, 1000.0), (Axis::Flops, 100.0), (Axis::MarginalFlops, 60.0)]);
    }

    #[test]
    fn ends_are_preferred_the_middle_is_said_and_nothing_is_extrapolated() {
        let all = compare(&findings());
        let [tokens, flops, marginal] = &all.points[..] else { panic!() };
        let place = |comparison: &Comparison, arm: usize| comparison.rows[arm].place();
        assert_eq!((place(tokens, 0), place(tokens, 1)), (Some(Place::End(0.0)), Some(Place::End(0.0))));
        assert_eq!((place(tokens, 2), place(flops, 2), place(marginal, 2)), (None, None, None));
        // 4 steps of 5 and 8 of 10.
        assert_eq!(place(flops, 1), Some(Place::End(0.0)));
        assert_eq!((place(marginal, 0), place(marginal, 1)), (Some(Place::Middle(0.6)), Some(Place::End(0.0))));
        assert_eq!(all.count, 3);
        let reference = marginal.rows[0].reading.as_ref().unwrap();
        assert!((reference.losses[0].1 - 3.41).abs() < 1e-12, "{reference:?}");
        assert!(tokens.rows[0].difference.is_none());
        let (interval, (low, high)) = tokens.rows[1].interval().unwrap();
        assert_eq!(interval.n, 3);
        assert!(low < -0.5 && high > -0.52 && high < -0.49, "{low} {high}");
        assert!(tokens.rows[1].survives);
    }

    #[test]
    fn only_seeds_of_both_are_paired() {
        let mut found = findings();
        found.cases[1].runs[0].measured = None;
        found.cases[0].runs[1].measured = None;
        let row = compare(&found).points[0].rows[1].clone();
        assert_eq!((row.difference.unwrap().n, row.difference.unwrap().ends, row.survives), (1, None, false));
    }

    /// As `compare` has runs that grew on plateaus: one case a seed, of one length and several costs.
    #[test]
    fn seeds_that_grew_at_different_steps_are_read_together() {
        let mut found = findings();
        let grown = found.cases.iter().position(|case| case.arm == 1).unwrap();
        let whole = found.cases.remove(grown);
        found.cases.retain(|case| case.arm != 1);
        for (run, at) in whole.runs.into_iter().zip([3, 4, 6]) {
            let timeline = Timeline { growth_steps: vec![at], ..whole.timeline.clone() };
            found.cases.push(StudyCase { runs: vec![run], timeline, length: whole.length.clone(), ..whole });
        }
        let seeds = |axis, point| {
            let reading = reading(&found, 1, axis, point).unwrap();
            (reading.place, reading.losses.iter().map(|(seed, _)| *seed).collect::<Vec<_>>())
        };
        assert_eq!(seeds(Axis::Tokens, 1000.0), (Place::End(0.0), vec![1, 2, 3]));
        // After 3, 4 and 6 of 10 steps of 5 FLOPs, the rest of 10: ends at 85, 80 and 70.
        assert_eq!(seeds(Axis::Flops, 70.0), (Place::Middle(0.8), vec![1, 2, 3]));
    }
}
