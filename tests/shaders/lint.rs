//! What holds of every shader: it is valid, translates, stays within every device's limits, and its barriers are met
//! by all.

use std::fmt::Display;

use naga::back::{PipelineConstants, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Scalar, ShaderStage, TypeInner};

use crate::uniformity;

const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const MAX_INVOCATIONS: u32 = 256;
/// Registers spill beyond: private arrays of a few KiB have lost the device on some drivers.
const MAX_PRIVATE_BYTES: u32 = 4 * 1024;

/// Numeric `override` constants of the files, with every value that pipelines are made with. Others keep their defaults.
const NUMBERS: [(&str, &[f64]); 4] = [
    ("LANES", &[8.0, 64.0]),
    ("ACCUMULATORS", &[8.0, 16.0, 24.0, 32.0]),
    ("UNROLLED", &[8.0, 32.0]),
    ("WORKGROUP", &[8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
];

/// What generated kernels may use besides; the files in `shaders/` may not, see [`form`].
const EXTRA: Capabilities = Capabilities::SUBGROUP
    .union(Capabilities::SUBGROUP_BARRIER)
    .union(Capabilities::SHADER_FLOAT16)
    .union(Capabilities::COOPERATIVE_MATRIX);

pub type Check = Result<(), String>;

/// Turns any error into one that says what was being done.
pub fn during<T, E: Display>(what: impl Display, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn validate(module: &Module) -> Result<ModuleInfo, String> {
    Validator::new(ValidationFlags::all(), Capabilities::default() | EXTRA)
        .validate(module)
        .map_err(|error| format!("{:?}", error.into_inner()))
}

/// Every check on a complete shader (imports resolved).
pub fn lint(source: &str) -> Check {
    lint_for(source, MAX_WORKGROUP_BYTES, false)
}

/// As [`lint`], with a limit for workgroup memory; `cooperative`: uses matrix units, which neither DX12 nor naga's
/// HLSL has.
pub fn lint_for(source: &str, workgroup_bytes: u32, cooperative: bool) -> Check {
    let (module, info) = parse(source)?;
    for entry in &module.entry_points {
        let name = entry.name.as_str();
        if name == "main" {
            return Err("an entry point is named after what it computes, not main".into());
        }
        for (module, info) in variants(&module, &info, name)? {
            limits(name, &module, &info, workgroup_bytes)?;
            translate(name, &module, &info, cooperative)?;
        }
        if let Some(fault) = uniformity::divergent(&module, entry, source).first() {
            return Err(format!("{name}: {fault} is in divergent control flow"));
        }
    }
    Ok(())
}

/// A valid module.
pub fn parse(source: &str) -> Result<(Module, ModuleInfo), String> {
    let options = naga::front::wgsl::Options::new();
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(source)
        .map_err(|error| error.emit_to_string(source))?;
    let info = during("validation", validate(&module))?;
    Ok((module, info))
}

/// The module of entry point `name` alone, once for each set of `override` constants.
pub fn variants(module: &Module, info: &ModuleInfo, name: &str) -> Result<Vec<(Module, ModuleInfo)>, String> {
    let of = |constants| {
        let processed = process_overrides(module, info, Some((ShaderStage::Compute, name)), constants);
        during(name, processed).map(|(module, info)| (module.into_owned(), info.into_owned()))
    };
    override_values(module)?.iter().map(of).collect()
}

/// Every `override` of a file is a boolean, or its values are known here.
pub fn overrides_are_known(source: &str) -> Check {
    let (module, _) = parse(source)?;
    let known = |name: &str| NUMBERS.iter().any(|(known, _)| *known == name);
    let numeric =
        module.overrides.iter().filter(|(_, it)| module.types[it.ty].inner != TypeInner::Scalar(Scalar::BOOL));
    match numeric.filter_map(|(_, it)| it.name.as_deref()).find(|name| !known(name)) {
        Some(name) => {
            Err(format!("override {name} is numeric, but the values it gets are not listed in tests/shaders"))
        }
        None => Ok(()),
    }
}

/// What every WebGPU device allows, for a module of one entry point.
fn limits(name: &str, module: &Module, info: &ModuleInfo, workgroup_bytes: u32) -> Check {
    let uses = info.get_entry_point(0);
    let used = module.global_variables.iter().filter(|(handle, _)| uses[*handle] != GlobalUse::empty());
    let used: Vec<_> = used.map(|(_, variable)| variable).collect();
    let buffers = used.iter().filter(|variable| matches!(variable.space, AddressSpace::Storage { .. })).count();
    at_most(name, "storage buffers", buffers, MAX_STORAGE_BUFFERS)?;

    let mut layouter = Layouter::default();
    during(name, layouter.update(module.to_ctx()))?;
    let shared = used.iter().filter(|variable| variable.space == AddressSpace::WorkGroup);
    let bytes = shared.map(|variable| layouter[variable.ty].size).sum();
    at_most(name, "bytes of workgroup memory", bytes, workgroup_bytes)?;

    // The functions that a call is inside of hold theirs at the same time; naga's modules do not recurse.
    let private = used.iter().filter(|variable| variable.space == AddressSpace::Private);
    let private: u32 = private.map(|variable| layouter[variable.ty].size).sum();
    // A matrix of matrix units is spread over a subgroup, of 8 invocations or more.
    let bytes_of = |ty| match module.types[ty].inner {
        TypeInner::CooperativeMatrix { .. } => layouter[ty].size / 8,
        _ => layouter[ty].size,
    };
    let functions = module.functions.iter().map(|(_, function)| function).chain([&module.entry_points[0].function]);
    for function in functions {
        let bytes: u32 = function.local_variables.iter().map(|(_, local)| bytes_of(local.ty)).sum();
        at_most(name, "bytes of private memory in a function", private + bytes, MAX_PRIVATE_BYTES)?;
    }

    let invocations = module.entry_points[0].workgroup_size.iter().product();
    at_most(name, "invocations", invocations, MAX_INVOCATIONS)
}

fn at_most<T: PartialOrd + Display>(entry: &str, what: &str, found: T, limit: T) -> Check {
    if found > limit {
        return Err(format!("{entry} uses {found} {what}, every device allows {limit}"));
    }
    Ok(())
}

/// All combinations of the `override` constants that are boolean or in [`NUMBERS`]; others must have a default.
fn override_values(module: &Module) -> Result<Vec<PipelineConstants>, String> {
    let mut sets = vec![PipelineConstants::default()];
    for (_, constant) in module.overrides.iter() {
        let name = constant.name.clone().unwrap_or_default();
        let boolean = module.types[constant.ty].inner == TypeInner::Scalar(Scalar::BOOL);
        let listed = NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, values)| *values);
        if let Some(values) = listed.or(boolean.then_some(&[0.0, 1.0])) {
            let with = |value: &f64| {
                let (name, value) = (name.clone(), *value);
                sets.clone().into_iter().map(move |mut set| {
                    set.insert(name.clone(), value);
                    set
                })
            };
            sets = values.iter().flat_map(with).collect();
        } else if constant.init.is_none() {
            return Err(format!("override {name} is not a boolean and has no default"));
        }
    }
    Ok(sets)
}

/// Translates an entry point as wgpu would for Vulkan, Metal and DX12.
fn translate(name: &str, module: &Module, info: &ModuleInfo, cooperative: bool) -> Check {
    let stage = ShaderStage::Compute;
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: name.into() };
    let words = spv::write_vec(module, info, &spv::Options::default(), Some(&pipeline));
    during(format!("{name} to SPIR-V"), words)?;

    let pipeline = msl::PipelineOptions { entry_point: Some((stage, name.into())), ..Default::default() };
    let options = msl::Options { lang_version: if cooperative { (2, 3) } else { (1, 0) }, ..Default::default() };
    let text = msl::write_string(module, info, &options, &pipeline);
    let (_, translated) = during(format!("{name} to MSL"), text)?;
    for name in translated.entry_point_names {
        during("MSL entry point", name)?;
    }

    if cooperative {
        return Ok(());
    }
    let pipeline = hlsl::PipelineOptions { entry_point: Some((stage, name.into())) };
    let (mut text, options) = (String::new(), hlsl::Options::default());
    let translated = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    for name in during(format!("{name} to HLSL"), translated)?.entry_point_names {
        during("HLSL entry point", name)?;
    }
    Ok(())
}
