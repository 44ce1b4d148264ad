//! An adapter in words, for people who choose one: driver, limits, features, 80 columns wide.
//!
//! Opens no device: a driver that crashes on use can still be listed.

use wgpu::{CooperativeMatrixProperties, CooperativeScalarType, Features};

use super::adapter::{FoundAdapter, backend_name, type_name};
use crate::report::number;

/// Widest line printed.
const COLUMNS: usize = 80;
/// Where values start, after the labels.
const INDENT: usize = 22;

/// Which adapter would run, and why.
pub(crate) fn choice_lines(chosen: &FoundAdapter, why: &str) -> String {
    let mut text = wrapped(
        &format!("Chosen: {}, {}, {}: {why}.", chosen.index, chosen.info.name, backend_name(chosen.info.backend)),
        0,
    );
    if chosen.is_software() {
        text += &wrapped(
            "This is a software adapter: it runs on the CPU, correct but slow. If this machine has a GPU, \
             install its driver.",
            0,
        );
    }
    text
}

/// One adapter: driver, limits and features that matter.
pub fn describe(candidate: &FoundAdapter) -> String {
    let FoundAdapter { index, info, adapter } = candidate;
    let kind = format!("{}, {}", backend_name(info.backend), type_name(info.device_type));
    let mut text = wrapped(&format!("{index}  {}", info.name), 3);
    let mut row = |label: &str, value: String| text += &wrapped(&format!("   {label:<19}{value}"), INDENT);
    row("backend, type", kind);
    row("driver", driver(info));
    if let Some(lacks) = candidate.lacks() {
        row("cannot be used", lacks);
    }
    let limits = adapter.limits();
    row("largest buffer", number::bytes(limits.max_buffer_size));
    row("largest binding", number::bytes(limits.max_storage_buffer_binding_size));
    row("storage buffers", format!("{} per kernel", limits.max_storage_buffers_per_shader_stage));
    row(
        "workgroup",
        format!(
            "{} invocations, {} KiB shared memory",
            limits.max_compute_invocations_per_workgroup,
            limits.max_compute_workgroup_storage_size / 1024
        ),
    );
    row("workgroups", format!("{} per dimension", limits.max_compute_workgroups_per_dimension));
    row("features", features(adapter.features(), info.subgroup_min_size, info.subgroup_max_size));
    let shapes = adapter.cooperative_matrix_properties();
    row("cooperative matrix", if shapes.is_empty() { "no".to_owned() } else { shape_list(&shapes) });
    text + "\n"
}

fn driver(info: &wgpu::AdapterInfo) -> String {
    let parts = [info.driver.as_str(), info.driver_info.as_str()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "not named".to_owned() } else { parts.join(", ") }
}

fn features(features: Features, subgroup_min: u32, subgroup_max: u32) -> String {
    let has = |feature, name: &str| if features.contains(feature) { name.to_owned() } else { format!("no {name}") };
    let subgroups = match (features.contains(Features::SUBGROUP), subgroup_min == subgroup_max) {
        (false, _) => "no subgroups".to_owned(),
        (true, true) => format!("subgroups of {subgroup_min}"),
        (true, false) => format!("subgroups of {subgroup_min} to {subgroup_max}"),
    };
    [has(Features::SHADER_F16, "f16"), subgroups, has(Features::TIMESTAMP_QUERY, "timestamps")].join(", ")
}

/// "16x16x16 f16 -> f32, ...": each shape once, in the driver's order.
fn shape_list(shapes: &[CooperativeMatrixProperties]) -> String {
    let scalar = |scalar| match scalar {
        CooperativeScalarType::F32 => "f32",
        CooperativeScalarType::F16 => "f16",
        CooperativeScalarType::I32 => "i32",
        CooperativeScalarType::U32 => "u32",
    };
    let mut seen: Vec<String> = Vec::new();
    for shape in shapes {
        let (m, n, k) = (shape.m_size, shape.n_size, shape.k_size);
        let line = format!("{m}x{n}x{k} {} -> {}", scalar(shape.ab_type), scalar(shape.cr_type));
        if !seen.contains(&line) {
            seen.push(line);
        }
    }
    seen.join(", ")
}

/// `text` in lines of at most [`COLUMNS`] characters, those after the first indented by `indent`.
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    // The first line keeps its own leading spaces and the padding between label and value.
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if line.chars().count() + word.trim_end().chars().count() > COLUMNS && !line.trim().is_empty() {
            out += line.trim_end();
            out.push('\n');
            line = " ".repeat(indent);
        }
        line += word;
    }
    out + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::adapter::{self, AdapterRequest};
    use super::*;

    #[test]
    fn lines_fit_in_80_columns_and_lose_no_word() {
        let words = "twelve_chars ".repeat(30);
        let text = wrapped(&format!("   {:<19}{words}", "label"), INDENT);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with(&" ".repeat(INDENT))), "{text}");
        assert_eq!(text.split_whitespace().count(), 31);
    }

    #[test]
    fn every_adapter_is_described_and_the_choice_is_explained() {
        let candidates = adapter::enumerate(&AdapterRequest::default()).unwrap();
        for candidate in &candidates {
            let text = describe(candidate);
            print!("{text}");
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        }
        let (chosen, why) = adapter::choose_from(candidates, &AdapterRequest::default()).unwrap();
        let lines = choice_lines(&chosen, &why);
        print!("{lines}");
        assert_eq!(lines.contains("software adapter: it runs"), chosen.is_software());
    }
}
