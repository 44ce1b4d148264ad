//! Every kernel as each back end is given it, as files: for compilers that are not part of this program.
//!
//! `OUT=folder cargo test --release --test shaders dump -- --ignored` writes them, and `scripts/compilers.sh` runs the
//! compilers. A file is called `NAME.KIND`: wgsl (whole shaders), spv, metal and hlsl (one entry point with one set of
//! `override` constants).

use naga::back::{hlsl, msl, spv};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use tokenformer::kernel::{Dtype, shader};
use tokenformer::ops::attention::Generated;

use crate::lint::{during, parse, variants};

/// Name and text of every shader: the files in each type of activations, and everything that is generated.
fn sources() -> BTreeMap<String, (String, bool)> {
    let files = shader::FILES.iter().flat_map(|(name, _)| {
        let stem = name.trim_end_matches(".wgsl");
        let generic = shader::is_generic(name);
        let types = [Dtype::F32, Dtype::F16].into_iter().filter(move |real| generic || *real == Dtype::F32);
        types.map(move |real| (format!("{stem}-{}", real.name()), (shader::source(name, real).unwrap(), false)))
    });
    let generated = crate::generated_kernels().into_iter().map(|(name, (kernel, candidate))| {
        let cooperative = matches!(candidate, tokenformer::kernel::Candidate::Cooperative { .. });
        (name.to_owned(), (kernel.text.unwrap().to_owned(), cooperative))
    });
    let attention = crate::attention().into_iter().map(|(name, generated)| {
        let cooperative = matches!(generated, Generated::Cooperative(_));
        (name.to_owned(), (generated.kernel().text.unwrap().to_owned(), cooperative))
    });
    files.chain(generated).chain(attention).collect()
}

/// The SPIR-V, MSL and, where there is any, HLSL of one entry point.
fn translations(
    name: &str,
    (module, info): &(Module, ModuleInfo),
    cooperative: bool,
) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let stage = ShaderStage::Compute;
    let options = spv::Options {
        lang_version: (1, 6),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: name.into() };
    let words = during(name, spv::write_vec(module, info, &options, Some(&pipeline)))?;
    let mut all = vec![("spv", words.iter().flat_map(|word| word.to_le_bytes()).collect())];

    let pipeline = msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let options = msl::Options { lang_version: if cooperative { (2, 3) } else { (2, 1) }, ..Default::default() };
    let (text, _) = during(name, msl::write_string(module, info, &options, &pipeline))?;
    all.push(("metal", text.into_bytes()));

    if !cooperative {
        let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
        let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_6, ..hlsl::Options::default() };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
        let names = during(name, written)?.entry_point_names;
        let entry = during(name, names.into_iter().next().ok_or("no entry point")?)?;
        // What a compiler has to be told: the name of the entry point, in the first line.
        all.push(("hlsl", format!("// {entry}\n{text}").into_bytes()));
    }
    Ok(all)
}

#[test]
#[ignore = "writes files for scripts/compilers.sh"]
fn dump() {
    let out = PathBuf::from(std::env::var_os("OUT").expect("OUT is the folder to write to"));
    fs::create_dir_all(&out).unwrap();
    // Constants that an entry point does not use make no other text.
    let mut known: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (name, (source, cooperative)) in sources() {
        fs::write(out.join(format!("{name}.wgsl")), &source).unwrap();
        let (module, info) = parse(&source).unwrap();
        for entry in &module.entry_points {
            for (i, variant) in variants(&module, &info, &entry.name).unwrap().iter().enumerate() {
                for (kind, bytes) in translations(&entry.name, variant, cooperative).unwrap() {
                    if known.insert(bytes.clone()) {
                        fs::write(out.join(format!("{name}-{}-{i}.{kind}", entry.name)), bytes).unwrap();
                    }
                }
            }
        }
    }
}
