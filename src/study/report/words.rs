//! What a report calls things.

use crate::config::{Arch, ModelConfig, Module};
use crate::report::number::signed;
use crate::study::budget::Axis;
use crate::study::comparison::{Finding, Place};

/// What is equal at a point of an axis.
pub(crate) fn equal(axis: Axis) -> &'static str {
    match axis {
        Axis::Tokens => "equal tokens",
        Axis::Flops => "equal total FLOPs",
        Axis::MarginalFlops => "equal FLOPs after the last growth",
    }
}

/// The name of an axis in a picture.
pub(crate) fn axis(axis: Axis) -> &'static str {
    match axis {
        Axis::Tokens => "training tokens",
        Axis::Flops => "training FLOPs",
        Axis::MarginalFlops => "FLOPs after the last growth",
    }
}

/// A finding in a table.
pub(crate) fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::NotReached => "not reached",
        Finding::NoPair => "no pair",
        Finding::OnePair => "one pair: no interval",
        Finding::NoDifference => "no difference shown",
        Finding::Better => "better",
        Finding::Worse => "worse",
    }
}

/// Where in its run a value was read, in a table.
pub(crate) fn place(place: Place) -> String {
    match place {
        Place::End(short) if short < 5e-4 => "end, decayed".to_owned(),
        Place::End(short) => format!("end, decayed ({:.1} % short)", 100.0 * short),
        Place::Middle(share) => format!("mid-schedule ({:.0} %)", 100.0 * share),
    }
}

/// The ends of an interval of differences.
pub(crate) fn span((low, high): (f64, f64)) -> String {
    format!("{} to {}", signed(low), signed(high))
}

/// A model and what it grows to.
pub(crate) fn models(models: &[ModelConfig]) -> String {
    let Some(first) = models.first() else { return String::new() };
    let arch = match first.arch {
        Arch::Tokenformer => "TokenFormer",
        Arch::Transformer => "Transformer",
    };
    let shape = |model: &ModelConfig| match model.arch {
        Arch::Tokenformer => {
            let slots = [Module::Query, Module::Proj, Module::Mlp].map(|module| model.slots(module).to_string());
            format!("{} layers of {} tokens", model.num_layers, slots.join("/"))
        }
        Arch::Transformer => format!("{} layers of {} MLP units", model.num_layers, model.mlp_width()),
    };
    let shapes: Vec<String> = models.iter().map(shape).collect();
    format!("{arch}, width {}, {}", first.hidden_size, shapes.join(" \u{2192} "))
}
