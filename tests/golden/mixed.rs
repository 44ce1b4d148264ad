//! Mixed precision, held to what PyTorch's float16 autocast loses on the same case: `fixtures/autocast/make.py` makes
//! the cases and measured PyTorch.

use crate::case::Case;
use crate::models::{config, ours, train_config, trainer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tokenformer::array::HostTensor;
use tokenformer::config::{Precision, TrainConfig};
use tokenformer::data::Batch;

/// A tensor may be so many times as far off as PyTorch's: on the case, or on the average over it and near copies of it, where
/// that is more.
const FACTOR: f64 = 1.5;
/// Or have this relative error, where it is larger: four roundings to f16.
const FLOOR: f64 = 2e-3;
/// Relative error in f32, so that a case that is read wrongly cannot pass for a good one.
const F32: f64 = 2e-4;
/// Or so much of PyTorch's in f16, where it is larger: gradients that are small differences are inexact in f32 too.
const F32_SHARE: f64 = 0.02;
/// Error of a loss, nats a token.
const LOSS: f64 = 5e-4;

/// What one tensor showed: its relative errors, PyTorch's (on the case, on the average) and ours, and ours over the largest
/// allowed.
pub struct Compared {
    name: String,
    torch: [f64; 2],
    ours: f64,
    used: f64,
}

/// A case listed in `fixtures/autocast/index.json`.
pub struct Listed {
    pub case: Case,
    autocast: BTreeMap<String, [f64; 2]>,
}

pub fn listed(fixtures: &Path) -> Vec<Listed> {
    let path = fixtures.join("autocast/index.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let index: Value = serde_json::from_str(&text).unwrap();
    let one = |entry: &Value| Listed {
        case: Case::open(&fixtures.join(entry["directory"].as_str().unwrap()), entry["case"].as_str().unwrap()),
        autocast: serde_json::from_value(entry["autocast"].clone()).unwrap(),
    };
    index["cases"].as_array().unwrap().iter().map(one).collect()
}

/// Loss and gradients of the case in a precision, in true size.
fn gradients(case: &Case, precision: Precision) -> (f64, BTreeMap<String, HostTensor>) {
    let (shape, tokens) = case.int("in.tokens").clone();
    let model = config(&case.config, shape[1]);
    let train = TrainConfig { precision, ..train_config(&case.hyper, shape[0]) };
    let mut trainer = trainer(&model, &train, &ours(&model, &case.with_prefix("param.")));
    let batch = [Batch { tokens, targets: case.int("in.targets").1.clone() }];
    loop {
        let stats = trainer.step(&batch, 0, 0.0).unwrap();
        let scale = trainer.loss_scale.scale;
        if stats.finite {
            let mut grads = trainer.gradients().unwrap();
            grads.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x /= scale);
            return (f64::from(stats.loss), grads);
        }
        assert!(scale > 1.0, "{}: gradients are not finite, whatever the loss scale", case.name);
        trainer.loss_scale.scale = scale / 2.0;
    }
}

/// Frobenius norm of the difference over that of `want`.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let pairs = || got.iter().zip(want).map(|(g, w)| (f64::from(*g), f64::from(*w)));
    (pairs().map(|(g, w)| (g - w) * (g - w)).sum::<f64>() / pairs().map(|(_, w)| w * w).sum::<f64>()).sqrt()
}

impl Listed {
    /// The gradients in f16, in order of how much of what is allowed they use, and what is wrong.
    pub fn compare(&self) -> (Vec<Compared>, Vec<String>) {
        let Self { case, autocast } = self;
        let model = config(&case.config, case.int("in.tokens").0[1]);
        let wanted = ours(&model, &case.with_prefix("grad."));
        let named: BTreeMap<String, String> =
            crate::models::names(&model).into_iter().map(|(oracle, ours)| (ours, oracle)).collect();
        let (want_loss, mut failures) = (f64::from(case.float("out.loss").data[0]), Vec::new());
        let mut compared = Vec::new();
        for precision in [Precision::F32, Precision::F16] {
            let (loss, grads) = gradients(case, precision);
            let mut check = |what: &str, error: f64, most: f64| {
                // Written so that NaN fails.
                let within = error <= most;
                if !within {
                    failures.push(format!(
                        "{} in {precision:?}: {what} is off by {error:.2e}, {most:.2e} are allowed",
                        case.name
                    ));
                }
            };
            check("the loss", (loss - want_loss).abs(), LOSS);
            for (name, grad) in &grads {
                let Some(&torch @ [_, average]) = autocast.get(&format!("grad.{}", named[name])) else { continue };
                let ours = relative(&grad.data, &wanted[name].data);
                let most = match precision {
                    Precision::F32 => F32.max(F32_SHARE * average),
                    Precision::F16 => FLOOR.max(FACTOR * torch[0].max(average)),
                };
                check(name, ours, most);
                if precision == Precision::F16 {
                    compared.push(Compared { name: name.clone(), torch, ours, used: ours / most });
                }
            }
        }
        // The loss has an entry too, and tensors whose gradient is zero have none.
        assert_eq!(compared.len() + 1, autocast.len(), "{}", case.name);
        compared.sort_by(|a, b| b.used.total_cmp(&a.used));
        (compared, failures)
    }
}

/// Middle of a list of errors.
fn median(errors: impl Iterator<Item = f64>) -> f64 {
    let mut errors: Vec<f64> = errors.collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One row of the table: tensors, the median errors, how many tensors are more than [`FACTOR`] times as far off as PyTorch on
/// the case itself, and the tensor nearest to its limit.
pub fn row(case: &Case, compared: &[Compared]) -> String {
    let middle = |of: fn(&Compared) -> f64| median(compared.iter().map(of));
    let (torch, ours) = (middle(|c| c.torch[1]), middle(|c| c.ours));
    let over = compared.iter().filter(|c| c.ours > FLOOR.max(FACTOR * c.torch[0])).count();
    let head = case.usize("width") / case.usize("heads");
    let start = format!("| {} | {head} | {} | {torch:.1e} | {ours:.1e} | {over} |", case.name, compared.len());
    let nearest = |Compared { name, torch: [own, average], ours, used }: &Compared| {
        format!(" `{name}` {own:.1e}, {average:.1e}, {ours:.1e} | {:.0} % |", 100.0 * used)
    };
    start + &compared.first().map_or_else(String::new, nearest)
}
