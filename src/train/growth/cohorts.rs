//! Cohorts: rows of parameters by age, and which of them train.

use crate::checkpoint::number;
use crate::config::{GrowthConfig, ModelConfig, OptimizerRule, Parameter, ResolvedGrowth, Role, RunConfig, TrainRule};
use crate::error::{Error, Result};
use crate::model::grow;
use crate::ops::adamw::{MAX_COHORTS, Segment};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rows of parameters that were added at the same time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cohort {
    /// Updates from which their bias correction counts: those done when the rows were added, 0 for the
    /// original parameters.
    pub born_step: u64,
    /// Factor on the learning rate of these rows.
    #[serde(with = "number")]
    pub lr_scale: f64,
    /// Whether updates leave these rows as they are.
    pub frozen: bool,
    /// Parameter name to its rows, first (included) to end (excluded).
    pub rows: BTreeMap<String, [u64; 2]>,
}

/// A model of a run, between two growths.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its shape.
    pub model: ModelConfig,
    /// Its rows by age.
    pub cohorts: Vec<Cohort>,
}

/// The cohort of a model that has not grown: all rows, counting from step 0.
pub fn first(model: &ModelConfig) -> Cohort {
    let rows = |(name, shape): (String, Vec<usize>)| (name, [0, rows(&shape) as u64]);
    let rows = model.param_shapes().into_iter().map(rows).collect();
    Cohort { born_step: 0, lr_scale: 1.0, frozen: false, rows }
}

/// The cohorts after a growth at `step` from `before` to `after`.
pub fn grown(cohorts: &[Cohort], [before, after]: [&ModelConfig; 2], rules: &ResolvedGrowth, step: u64) -> Vec<Cohort> {
    let mut cohorts = cohorts.to_vec();
    for cohort in &mut cohorts {
        let thawed = cohort.frozen && rules.train == TrainRule::All;
        cohort.frozen = rules.train == TrainRule::New;
        // Frozen rows kept no moments: theirs begin again.
        if thawed || rules.optimizer == OptimizerRule::Reset {
            cohort.born_step = step;
        }
    }
    let born_step = match rules.optimizer {
        OptimizerRule::CarryStep => cohorts.first().map_or(step, |c| c.born_step),
        OptimizerRule::Carry | OptimizerRule::Reset => step,
    };
    let rows = grow::new_rows(before, after);
    cohorts.push(Cohort { born_step, lr_scale: rules.lr_scale, frozen: false, rows });
    cohorts
}

/// The models of a run with their cohorts, as far as they decide what trains: the first with those of `start`, or as one
/// that has not grown, each later one after the growth that made it.
pub(crate) fn staged(
    models: Vec<ModelConfig>,
    growths: impl IntoIterator<Item = ResolvedGrowth>,
    start: Option<Vec<Cohort>>,
) -> Vec<Stage> {
    let mut growths = growths.into_iter();
    let mut stages: Vec<Stage> = Vec::with_capacity(models.len());
    let mut start = start;
    for model in models {
        let growth = stages.last().and_then(|before| Some((before, growths.next()?)));
        let cohorts = match growth {
            Some((before, rules)) => grown(&before.cohorts, [&before.model, &model], &rules, 0),
            None => start.take().unwrap_or_else(|| vec![first(&model)]),
        };
        stages.push(Stage { model, cohorts });
    }
    stages
}

/// [`staged`] for the models and growths of `config`.
///
/// # Errors
/// Those of [`RunConfig::stages`], and of [`check_count`].
pub fn stages(config: &RunConfig, start: Option<Vec<Cohort>>) -> Result<Vec<Stage>> {
    let stages = staged(config.stages()?, config.growth.iter().map(GrowthConfig::resolve), start);
    stages.last().map_or(Ok(()), |last| check_count(&last.cohorts))?;
    Ok(stages)
}

/// Whether an update can tell so many cohorts apart.
///
/// # Errors
/// A usage error for a model that has grown, or is to grow, too often.
pub(crate) fn check_count(cohorts: &[Cohort]) -> Result<()> {
    if cohorts.len() <= MAX_COHORTS {
        return Ok(());
    }
    Err(Error::usage(format!(
        "a model can grow {} times in all, and with this it would be {}: add more at a time",
        MAX_COHORTS - 1,
        cohorts.len() - 1
    )))
}

/// What trains: parameter name and the shape of its last rows that do. Rows before them have no gradient and no moments.
///
/// Only the tokens of a Pattention train in part, and those of query, key and value from the same row on; any other
/// parameter with a row that trains is here with all its rows. AdamW leaves frozen rows alone wherever they are.
///
/// # Errors
/// An input error where nothing trains.
pub fn trained(model: &ModelConfig, cohorts: &[Cohort]) -> Result<Vec<(String, Vec<usize>)>> {
    let parameters = model.parameters();
    let group = |parameter: &Parameter| (parameter.layer, parameter.role.trained_with());
    let mut first_rows: BTreeMap<(Option<usize>, Role), usize> = BTreeMap::new();
    for parameter in &parameters {
        let trained = cohorts.iter().filter(|cohort| !cohort.frozen);
        let of_name = trained.filter_map(|cohort| cohort.rows.get(&parameter.name));
        let first = of_name.filter(|[first, end]| first < end).map(|[first, _]| *first as usize).min();
        let in_part = parameter.role.is_tokens();
        let first = first.map_or(rows(&parameter.shape), |first| if in_part { first } else { 0 });
        let known = first_rows.entry(group(parameter)).or_insert(first);
        *known = first.min(*known);
    }
    let last_rows = |parameter: Parameter| {
        let first = first_rows.get(&group(&parameter)).copied().unwrap_or(0);
        let Parameter { name, mut shape, .. } = parameter;
        let count = rows(&shape).saturating_sub(first);
        if let Some(rows) = shape.first_mut() {
            *rows = count;
        }
        (count > 0).then_some((name, shape))
    };
    let trained: Vec<_> = parameters.into_iter().filter_map(last_rows).collect();
    if trained.is_empty() {
        return Err(Error::input(
            "nothing of the model trains, because every row of it is frozen: grow it, or train it from an earlier checkpoint",
        ));
    }
    Ok(trained)
}

/// The elements that are updated, of each of the parameters that train, by cohort.
pub fn segments(
    model: &ModelConfig,
    cohorts: &[Cohort],
    trained: &[(String, Vec<usize>)],
) -> BTreeMap<String, Vec<Segment>> {
    let parameters = model.parameters().into_iter().map(|parameter| (parameter.name.clone(), parameter));
    let parameters: BTreeMap<String, Parameter> = parameters.collect();
    let of_parameter = |(name, part): &(String, Vec<usize>)| {
        let row: usize = part.iter().skip(1).product();
        let whole = parameters.get(name);
        let before = whole.map_or(0, |whole| rows(&whole.shape)).saturating_sub(rows(part)) as u64;
        let decay = whole.is_some_and(|whole| whole.role.decays());
        let of_name = cohorts.iter().enumerate().filter_map(|(i, c)| Some((i, c.frozen, c.rows.get(name)?)));
        let segment = |(cohort, frozen, &[first, end]): (usize, bool, &[u64; 2])| {
            let first = first.max(before);
            let elements = |rows: u64| rows as usize * row;
            let (first, state, n) = (elements(first), elements(first - before), elements(end.saturating_sub(first)));
            (n > 0).then_some(Segment { first, state, moment: state, n, cohort, decay, frozen })
        };
        (name.clone(), of_name.filter_map(segment).collect())
    };
    trained.iter().map(of_parameter).collect()
}

fn rows(shape: &[usize]) -> usize {
    shape.first().copied().unwrap_or(1)
}
