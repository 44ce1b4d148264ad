//! Values over the course of a run, however many: neighbours are taken together where there are more than a picture shows.

/// Most marks of a series: about as many as a picture has pixels across.
pub(crate) const MOST: usize = 720;

/// Where in a run something was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct At {
    /// Steps done.
    pub step: u64,
    /// Tokens seen; not finite where that is not known.
    pub tokens: f64,
    /// Seconds of training since the start of the run.
    pub seconds: f64,
}

/// One value, or several in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// Where the first of them was measured.
    pub first: At,
    /// And the last.
    pub last: At,
    /// Their mean.
    pub mean: f64,
    /// The least of them.
    pub least: f64,
    /// The most.
    pub most: f64,
    count: u64,
}

impl Mark {
    fn of(at: At, value: f64) -> Self {
        Self { first: at, last: at, mean: value, least: value, most: value, count: 1 }
    }

    fn take(&mut self, later: Self) {
        let count = self.count + later.count;
        self.mean += (later.mean - self.mean) * later.count as f64 / count as f64;
        (self.least, self.most) = (self.least.min(later.least), self.most.max(later.most));
        (self.last, self.count) = (later.last, count);
    }
}

/// Values of one kind in the order of the run. The same values make the same marks, whenever they came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    marks: Vec<Mark>,
    /// Values that are taken together.
    each: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { marks: Vec::new(), each: 1 }
    }
}

impl Series {
    /// What is not finite is left out.
    pub(crate) fn add(&mut self, at: At, value: f64) {
        if !value.is_finite() {
            return;
        }
        let mark = Mark::of(at, value);
        match self.marks.last_mut().filter(|last| last.count < self.each) {
            Some(last) => last.take(mark),
            None => self.marks.push(mark),
        }
        if self.marks.len() > MOST {
            self.each *= 2;
            let pair = |pair: &[Mark]| {
                let mut pair = pair.iter().copied();
                let mut whole = pair.next()?;
                pair.for_each(|later| whole.take(later));
                Some(whole)
            };
            self.marks = self.marks.chunks(2).filter_map(pair).collect();
        }
    }

    /// Forgets what came after `step`.
    pub(crate) fn cut(&mut self, step: u64) {
        self.marks.retain(|mark| mark.first.step <= step);
        // What was taken together with later values would else seem to be later.
        if let Some(last) = self.marks.last_mut().filter(|last| last.last.step > step) {
            last.last = last.first;
        }
    }

    /// All of it.
    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Values that a mark is of.
    pub(crate) fn each(&self) -> u64 {
        self.each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: u64) -> At {
        At { step, tokens: 2.0 * step as f64, seconds: 0.0 }
    }

    #[test]
    fn any_number_of_values_is_few_marks_with_the_same_mean_and_ends() {
        let mut series = Series::default();
        (1..=1_000_000).for_each(|step| series.add(at(step), step as f64));
        let marks = series.marks();
        assert!((MOST / 2..=MOST).contains(&marks.len()) && series.each().is_power_of_two(), "{}", marks.len());
        let count: u64 = marks.iter().map(|mark| mark.count).sum();
        let sum: f64 = marks.iter().map(|mark| mark.mean * mark.count as f64).sum();
        assert_eq!((count, marks[0].least, marks[marks.len() - 1].most), (1_000_000, 1.0, 1e6));
        assert!((sum / 500_000_500_000.0 - 1.0).abs() < 1e-12);
        assert!(marks.windows(2).all(|pair| pair[0].last.step < pair[1].first.step));
    }

    #[test]
    fn what_came_after_a_step_is_forgotten() {
        let mut series = Series::default();
        (1..=5).for_each(|step| series.add(at(step), f64::from(step as u32)));
        series.add(at(6), f64::NAN);
        series.cut(3);
        assert_eq!(series.marks().iter().map(|mark| mark.mean).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    }
}
