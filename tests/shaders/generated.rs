//! Generated kernels to read: a few are checked in under `shaders/generated/`, and are what the generator gives.
//!
//! After a change of a generator, `TOKENFORMER_BLESS=1 cargo test --test shaders checked_in` writes them again.
//! `tokenformer bench matmul --print NAME --layout nt` prints any other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokenformer::kernel::{Dtype, Fragments, Kernel, Layout, Target};
use tokenformer::ops::attention::source::{Form, Pass};
use tokenformer::ops::attention::{AttentionSchedule, Generated};
use tokenformer::ops::matmul::candidates;
use tokenformer::ops::matmul::source::{ProductForm, Types, Vectors};

/// One of each kind, as a training step calls it: candidate, layout, types of the operands and of C.
const READ: [(&str, Layout, Dtype, Dtype); 5] = [
    ("tiles-64x64x8-8x8", Layout::NT, Dtype::F32, Dtype::F32),
    ("tiles-128x128x8-8x8", Layout::TN, Dtype::F32, Dtype::F32),
    ("tiles-32x32x16-4x4", Layout::NN, Dtype::F16, Dtype::F16),
    ("lanes8-8x4-u4-broadcast", Layout::NT, Dtype::F32, Dtype::F32),
    ("cooperative16-128x128x32-2x2-w32", Layout::NN, Dtype::F16, Dtype::F16),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/generated")
}

/// The kernels of attention over heads of 64 that rotate 16 channels of queries and keys: f32 on lanes, f16 on matrix units.
fn attentions() -> Vec<Generated> {
    let lanes = Target {
        subgroup_sizes: [32; 2],
        subgroup_barrier: true,
        f16: true,
        workgroup_bytes: 48 * 1024,
        ..Target::WEBGPU
    };
    let units = Target { fragments: Fragments::of(|fragment| fragment.side == 16), ..lanes };
    let of = |(schedule, dtype, target)| {
        let form = Form { head_width: 64, half: 8, keys: true, dtype, dropout: false };
        Pass::ALL.map(|pass| Generated::new(schedule, form, pass, target).unwrap())
    };
    [(AttentionSchedule::Lanes, Dtype::F32, &lanes), (AttentionSchedule::Cooperative, Dtype::F16, &units)]
        .into_iter()
        .flat_map(of)
        .collect()
}

/// File names and texts.
fn expected() -> BTreeMap<String, &'static str> {
    let file = |(name, layout, operand, c): (&str, Layout, Dtype, Dtype)| {
        let candidate = name.parse().unwrap();
        let kernel: &Kernel = candidates::kernel(
            candidate,
            layout,
            Types { a: operand, b: operand, c },
            Vectors::ALL,
            ProductForm::Whole,
        );
        (format!("{}.wgsl", kernel.file), kernel.text.unwrap())
    };
    let of_attention = |generated: Generated| {
        let kernel = generated.kernel();
        (format!("{}.wgsl", kernel.file), kernel.text.unwrap())
    };
    READ.into_iter().map(file).chain(attentions().into_iter().map(of_attention)).collect()
}

#[test]
fn texts_that_are_checked_in_are_what_the_generator_gives() {
    let expected = expected();
    assert_eq!(expected.len(), READ.len() + 6);
    let on_disk = || fs::read_dir(folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    if std::env::var_os("TOKENFORMER_BLESS").is_some() {
        on_disk().for_each(|name| fs::remove_file(folder().join(name)).unwrap());
        expected.iter().for_each(|(name, text)| fs::write(folder().join(name), text).unwrap());
    }
    let stray: Vec<String> = on_disk().filter(|name| !expected.contains_key(name)).collect();
    assert!(stray.is_empty(), "no generator gives shaders/generated/{}", stray.join(", "));
    for (name, text) in expected {
        let kept = fs::read_to_string(folder().join(&name)).unwrap_or_default();
        let line = kept.lines().zip(text.lines()).position(|(kept, given)| kept != given).map_or(0, |line| line + 1);
        assert!(
            kept == text,
            "shaders/generated/{name} is not what the generator gives (line {line}); if that is meant, write it again with \
             TOKENFORMER_BLESS=1 cargo test --test shaders checked_in"
        );
    }
}
