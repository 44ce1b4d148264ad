//! What Rust binds is what the shader declares: the words of the uniform block, the access and the element type of
//! every binding.
//!
//! Every case of every operator is recorded, with its backward, in both precisions, for a software driver and for
//! GPUs, and each dispatch held against naga's view of its entry point. No device is needed. Of parameter blocks the name,
//! the type and the place of every field must be those of the WGSL struct. Their words have no types: a count is told from
//! a number by its bits, which counts of test cases do not share with numbers of usual size.

use std::collections::{BTreeMap, BTreeSet};

use naga::proc::Layouter;
use naga::valid::{GlobalUse, ModuleInfo};
use naga::{
    AddressSpace, ArraySize, GlobalVariable, Handle, Module, Scalar, ScalarKind, StorageAccess, Type, TypeInner,
};
use tokenformer::gpu::clocks::RooflineDims;
use tokenformer::graph::{Call, Graph, Tensor};
use tokenformer::kernel::{
    Access, Candidate, Dtype, Field, FieldType, Fragments, KernelTable, ParameterBlock, Parameters, Target, shader,
};
use tokenformer::ops::adamw::UpdateScalars;
use tokenformer::ops::attention::more_cases;
use tokenformer::ops::dropout::DropoutDraw;
use tokenformer::ops::stats::Stats;
use tokenformer::ops::{Case, Kind, mixed_registry, registry};
use tokenformer::tune::TrialDims;

use crate::lint::{Check, during, parse};

/// What a dispatch binds.
struct Bound<'a> {
    /// Of bindings 1, 2, ...
    access: &'a [Access],
    /// The uniform block at binding 0.
    parameters: &'a ParameterBlock,
    /// Bytes and element type of bindings 1, 2, ...
    tensors: &'a [(u64, Dtype)],
}

/// Holds what is bound against the declarations that `entry` uses.
fn fits(module: &Module, info: &ModuleInfo, entry: &str, bound: &Bound) -> Check {
    let index = module.entry_points.iter().position(|point| point.name == entry);
    let uses = info.get_entry_point(index.ok_or_else(|| format!("there is no entry point {entry}"))?);
    if bound.access.len() != bound.tensors.len() {
        return Err(format!("{} bindings for {} tensors", bound.access.len(), bound.tensors.len()));
    }
    let mut unused: BTreeSet<usize> = (1..=bound.access.len()).collect();
    for (handle, variable) in module.global_variables.iter() {
        let (false, Some(binding)) = (uses[handle] == GlobalUse::empty(), &variable.binding) else { continue };
        let at = binding.binding as usize;
        let name = variable.name.as_deref().unwrap_or("a binding");
        let fits = match at.checked_sub(1) {
            None => block(module, variable, bound.parameters),
            Some(i) => match (bound.access.get(i), bound.tensors.get(i)) {
                (Some(access), Some(&tensor)) => one(module, variable, *access, tensor),
                _ => Err("nothing is bound there".to_owned()),
            },
        };
        during(format!("{name} at {at}"), fits)?;
        unused.remove(&at);
    }
    if unused.is_empty() { Ok(()) } else { Err(format!("{unused:?} are bound and not used")) }
}

/// The uniform block: fields as Rust names them, words one after the other, each of the type that its value looks like, and
/// none left over.
fn block(module: &Module, variable: &GlobalVariable, parameters: &ParameterBlock) -> Check {
    let words = parameters.words();
    let (TypeInner::Struct { span, .. }, AddressSpace::Uniform) = (&module.types[variable.ty].inner, variable.space)
    else {
        return Err("it is no uniform struct".to_owned());
    };
    if *span as usize > 4 * words.len() {
        return Err(format!("it has {span} bytes, {} are bound", 4 * words.len()));
    }
    let scalars = same_fields(module, variable.ty, parameters.name(), parameters.fields())?;
    for (i, (name, offset, kind)) in scalars.iter().enumerate() {
        if *offset as usize != 4 * i {
            return Err(format!("{name} is at byte {offset}, not {}", 4 * i));
        }
        let word = words[i];
        let number = f32::from_bits(word);
        let fits = match kind {
            ScalarKind::Float => word == 0 || number.is_normal(),
            _ => word < 1 << 23 || word == u32::MAX,
        };
        if !fits {
            return Err(format!("{name} is not of the type of what Rust puts there, {word:#x} ({number:e})"));
        }
    }
    match words.iter().skip(scalars.len()).find(|&&word| word != 0) {
        Some(word) => Err(format!("it has {} words, and Rust puts {word:#x} after them", scalars.len())),
        None => Ok(()),
    }
}

/// Name, offset and kind of a 32-bit scalar.
type Place = (String, u32, ScalarKind);

/// The scalars of a WGSL struct, if it has the name and the fields of a Rust struct.
fn same_fields(module: &Module, ty: Handle<Type>, name: &str, fields: &'static [Field]) -> Result<Vec<Place>, String> {
    let declared = module.types[ty].name.as_deref().unwrap_or("");
    if declared != name {
        return Err(format!("it is a {declared}, and Rust binds a {name}"));
    }
    let (mut declared, mut bound) = (Vec::new(), Vec::new());
    flatten(module, ty, 0, "", &mut declared)?;
    flatten_rust(&FieldType::Struct(fields), 0, "", &mut bound);
    let place = |place: Option<&Place>| {
        place.map_or("nothing".to_owned(), |(name, offset, kind)| format!("{name}: {kind:?} at byte {offset}"))
    };
    match (0..declared.len().max(bound.len())).find(|&i| declared.get(i) != bound.get(i)) {
        Some(i) => Err(format!("it has {}, the Rust struct {}", place(declared.get(i)), place(bound.get(i)))),
        None => Ok(declared),
    }
}

/// As [`flatten`], of a field of a Rust struct; gives its size.
fn flatten_rust(ty: &FieldType, offset: usize, name: &str, out: &mut Vec<Place>) -> usize {
    let scalar = match ty {
        FieldType::U32 => ScalarKind::Uint,
        FieldType::F32 => ScalarKind::Float,
        FieldType::Array(of, count) => {
            return (0..*count).fold(0, |size, _| size + flatten_rust(of, offset + size, name, out));
        }
        FieldType::Struct(fields) => {
            return fields
                .iter()
                .map(|field| field.offset + flatten_rust(&field.ty, offset + field.offset, field.name, out))
                .last()
                .unwrap_or(0);
        }
    };
    out.push((name.to_owned(), offset as u32, scalar));
    4
}

/// Name, offset and kind of each 32-bit scalar of a type, in order.
fn flatten(module: &Module, ty: Handle<Type>, offset: u32, name: &str, out: &mut Vec<Place>) -> Check {
    match &module.types[ty].inner {
        TypeInner::Scalar(Scalar { kind: kind @ (ScalarKind::Float | ScalarKind::Uint), width: 4 }) => {
            out.push((name.to_owned(), offset, *kind));
        }
        TypeInner::Vector { size, scalar: Scalar { kind, width: 4 } } => {
            out.extend((0..*size as u32).map(|i| (name.to_owned(), offset + 4 * i, *kind)));
        }
        TypeInner::Array { base, size: ArraySize::Constant(size), stride } => {
            for i in 0..size.get() {
                flatten(module, *base, offset + i * stride, name, out)?;
            }
        }
        TypeInner::Struct { members, .. } => {
            for member in members {
                flatten(module, member.ty, offset + member.offset, member.name.as_deref().unwrap_or(""), out)?;
            }
        }
        other => return Err(format!("{name} is {other:?}: Rust puts 32-bit numbers and counts into blocks")),
    }
    Ok(())
}

/// A tensor: the access that the pipeline layout gives it, and elements as wide as the tensor's.
fn one(module: &Module, variable: &GlobalVariable, access: Access, (bytes, dtype): (u64, Dtype)) -> Check {
    let declared = match variable.space {
        AddressSpace::Uniform => Access::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::Write,
        AddressSpace::Storage { .. } => Access::Read,
        other => return Err(format!("{other:?} cannot be bound")),
    };
    if declared != access {
        return Err(format!("it is declared {declared:?} and bound {access:?}"));
    }
    let mut layouter = Layouter::default();
    during("layout", layouter.update(module.to_ctx()))?;
    let size = u64::from(layouter[variable.ty].size);
    if access == Access::Uniform {
        // Uniform buffers are rounded up to 16 bytes.
        let fits = size <= bytes && bytes < size + 16;
        return if fits { Ok(()) } else { Err(format!("it has {size} bytes, the tensor {bytes}")) };
    }
    if module.types[variable.ty].name.as_deref() == Some(Stats::NAME) {
        same_fields(module, variable.ty, Stats::NAME, Stats::FIELDS)?;
        return if size == bytes { Ok(()) } else { Err(format!("it has {size} bytes, the tensor {bytes}")) };
    }
    let TypeInner::Array { base, size: ArraySize::Dynamic, .. } = module.types[variable.ty].inner else {
        return Err("it is no array of any length".to_owned());
    };
    let scalar = module.types[base].inner.scalar_width().unwrap_or(0);
    match u64::from(scalar) == dtype.bytes() {
        true => Ok(()),
        false => Err(format!("its elements have {scalar} bytes, those of the tensor {}", dtype.bytes())),
    }
}

/// Records a case as the checks on a device do.
fn record(case: &Case, kernels: &KernelTable, precision: Dtype, training: bool) -> Graph {
    let gradient = training && case.gradient;
    let mut g = if gradient { Graph::training(kernels) } else { Graph::forward_only(kernels) };
    g.set_precision(precision);
    let mut arguments = Vec::new();
    for input in &case.inputs {
        let tensor = g.tensor(input.name, &input.shape, input.class(gradient, precision));
        arguments.push(if input.kind == Kind::Activation { converted(&mut g, tensor, gradient) } else { tensor });
    }
    let outputs = (case.build)(&mut g, &arguments).unwrap();
    if gradient {
        if let (true, Some(&first)) = (case.seeded, outputs.first()) {
            let shape = g.shape(first).to_vec();
            let upstream = g.activation("upstream", &shape);
            g.set_grad(first, upstream);
        }
        g.backward().unwrap();
    }
    g
}

/// An activation in the precision of the graph, whose gradient is converted back.
fn converted(g: &mut Graph, tensor: Tensor, gradient: bool) -> Tensor {
    let copy = g.weight(tensor).unwrap();
    if copy != tensor && gradient {
        g.on_backward(move |g| {
            let dcopy = g.take_grad(copy)?;
            let (dtensor, _) = g.grad_target(tensor)?;
            g.cast_back(dcopy, dtensor)
        });
    }
    copy
}

/// Files that no operator dispatches: `bench` and tuning do, with blocks of their own, or the engine, without a uniform
/// block.
const NOT_OPERATORS: [&str; 3] = ["roofline.wgsl", "heartbeat.wgsl", "trial.wgsl"];

/// What has been recorded, against what is declared.
#[derive(Default)]
struct Comparison {
    modules: BTreeMap<String, (Module, ModuleInfo)>,
    seen: BTreeSet<(&'static str, &'static str)>,
    calls: usize,
}

impl Comparison {
    fn case(&mut self, case: &Case, kernels: &KernelTable, precision: Dtype) {
        for g in [true, false].map(|training| record(case, kernels, precision, training)) {
            for call in g.calls() {
                let Call { kernel, tensors, parameters, .. } = call;
                let source = || shader::source_for(kernel.file, kernel.real, kernel.rows).unwrap();
                let parsed = || parse(&kernel.text.map_or_else(source, str::to_owned)).unwrap();
                let key = format!("{} {} {:?}", kernel.file, kernel.real.name(), kernel.rows);
                let (module, info) = self.modules.entry(key).or_insert_with(parsed);
                let tensors: Vec<_> = tensors.iter().map(|t| &g.tensors()[t.index()]).collect();
                let tensors: Vec<_> = tensors.iter().map(|tensor| (tensor.bytes(), tensor.dtype)).collect();
                let bound = Bound { access: kernel.bindings, parameters, tensors: &tensors };
                fits(module, info, kernel.entry, &bound)
                    .unwrap_or_else(|fault| panic!("{} in {} {}: {fault}", kernel.name(), case.op, case.name));
                self.seen.insert((kernel.file, kernel.entry));
                self.calls += 1;
            }
        }
    }
}

#[test]
fn what_rust_binds_is_what_shaders_declare() {
    let webgpu = Target::WEBGPU;
    let gpu = Target { subgroup_sizes: [32; 2], f16: true, workgroup_bytes: 32 * 1024, ..webgpu };
    let matrices = Target {
        fragments: Fragments::of(|fragment| fragment.side == 16),
        subgroup_barrier: true,
        workgroup_bytes: 48 * 1024,
        ..gpu
    };
    let software = Target { software: true, ..gpu };
    let mut comparison = Comparison::default();
    for target in [webgpu, gpu, matrices, software] {
        let kernels = KernelTable::defaults(target);
        more_cases().iter().for_each(|case| comparison.case(case, &kernels, Dtype::F32));
        more_cases().iter().for_each(|case| comparison.case(case, &kernels, Dtype::F16));
        registry().iter().for_each(|case| comparison.case(case, &kernels, Dtype::F32));
        mixed_registry().iter().for_each(|case| comparison.case(case, &kernels, Dtype::F16));
    }
    // Every kernel that products may have.
    let candidates: BTreeSet<Candidate> =
        crate::generated_kernels().into_values().map(|(_, candidate)| candidate).collect();
    for candidate in candidates {
        let kernels = KernelTable::forced(gpu, candidate);
        for case in registry().iter().filter(|case| case.op == "matmul") {
            for precision in [Dtype::F32, Dtype::F16] {
                comparison.case(case, &kernels, precision);
            }
        }
    }
    let Comparison { seen, calls, .. } = comparison;
    println!("{calls} dispatches of {} entry points", seen.len());
    for (file, _) in shader::FILES.iter().filter(|(file, _)| !NOT_OPERATORS.contains(file)) {
        let (module, _) = parse(&shader::source(file, Dtype::F32).unwrap()).unwrap();
        for entry in &module.entry_points {
            let name = entry.name.as_str();
            assert!(seen.contains(&(*file, name)), "no case of an operator dispatches {file}:{name}");
        }
    }
}

/// What no operator's case binds as its parameter block: blocks of tuning and `bench`, and what the host writes by itself.
#[test]
fn blocks_that_no_operator_records_are_what_shaders_declare() {
    let fits = |file: &str, name: &'static str, fields: &'static [Field]| {
        let (module, _) = parse(&shader::source(file, Dtype::F32).unwrap()).unwrap();
        let ty = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
        let (ty, _) = ty.unwrap_or_else(|| panic!("{file} has no struct {name}"));
        same_fields(&module, ty, name, fields).unwrap_or_else(|fault| panic!("{name} in {file}: {fault}"));
    };
    fits("trial.wgsl", TrialDims::NAME, TrialDims::FIELDS);
    fits("roofline.wgsl", RooflineDims::NAME, RooflineDims::FIELDS);
    fits("adamw.wgsl", UpdateScalars::NAME, UpdateScalars::FIELDS);
    fits("stats.wgsl", Stats::NAME, Stats::FIELDS);
    fits("dropout_mask.wgsl", DropoutDraw::NAME, DropoutDraw::FIELDS);
}

const fn field(name: &'static str, ty: FieldType, offset: usize) -> Field {
    Field { name, ty, offset, doc: "" }
}

/// As the struct of the text below.
const SOUND: &[Field] =
    &[field("rows", FieldType::U32, 0), field("eps", FieldType::F32, 4), field("flag", FieldType::U32, 8)];

/// The same with a name in place of another, of another type, swapped, and without the last.
const WRONG_FIELDS: [(&[Field], &str); 5] = [
    (
        &[field("flag", FieldType::U32, 0), field("eps", FieldType::F32, 4), field("rows", FieldType::U32, 8)],
        "it has rows: Uint at byte 0, the Rust struct flag: Uint at byte 0",
    ),
    (
        &[field("rows", FieldType::U32, 0), field("tau", FieldType::F32, 4), field("flag", FieldType::U32, 8)],
        "it has eps: Float at byte 4, the Rust struct tau: Float at byte 4",
    ),
    (
        &[field("rows", FieldType::U32, 0), field("eps", FieldType::U32, 4), field("flag", FieldType::U32, 8)],
        "it has eps: Float at byte 4, the Rust struct eps: Uint at byte 4",
    ),
    (
        &[field("rows", FieldType::U32, 0), field("eps", FieldType::F32, 4), field("flag", FieldType::U32, 12)],
        "it has flag: Uint at byte 8, the Rust struct flag: Uint at byte 12",
    ),
    (
        &[field("rows", FieldType::U32, 0), field("eps", FieldType::F32, 4)],
        "it has flag: Uint at byte 8, the Rust struct nothing",
    ),
];

#[test]
fn planted_layouts_are_caught() {
    let text = "enable f16;
        struct Dims { rows: u32, eps: f32, flag: u32 }
        struct Update { lr: f32, cohorts: array<vec4<f32>, 2> }
        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read> x: array<f16>;
        @group(0) @binding(2) var<uniform> update: Update;
        @group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
        @compute @workgroup_size(1) fn work() { y[0] = vec4(dims.eps + f32(x[0]) + update.lr); }";
    let (module, info) = parse(text).unwrap();
    let sound_access = [Access::Read, Access::Uniform, Access::Write];
    let sound_words = [7, 1e-5_f32.to_bits(), 1, 0];
    let sound_tensors = [(64, Dtype::F16), (48, Dtype::F32), (64, Dtype::F32)];
    let of = |module: &Module, info: &ModuleInfo, access: &[Access], parameters, tensors: &[(u64, Dtype)]| {
        let bound = Bound { access, parameters: &parameters, tensors };
        fits(module, info, "work", &bound).map_or_else(|fault| fault, |()| String::new())
    };
    let said = |access: &[Access], words: &[u32], tensors: &[(u64, Dtype)]| {
        of(&module, &info, access, ParameterBlock::of_words("Dims", SOUND, words), tensors)
    };
    assert_eq!(said(&sound_access, &sound_words, &sound_tensors), "");
    for (words, words_said) in [
        (vec![1e-5_f32.to_bits(), 7, 1, 0], "rows is not of the type"),
        (vec![7, 1, 1e-5_f32.to_bits(), 0], "eps is not of the type"),
        (vec![7, 0, 1, 3], "it has 3 words, and Rust puts 0x3 after them"),
    ] {
        let fault = said(&sound_access, &words, &sound_tensors);
        assert!(fault.contains(words_said), "{fault}");
    }
    let (longer, longer_info) = parse(&text.replace("flag: u32", "flag: u32, n: u32, k: u32")).unwrap();
    let short = ParameterBlock::of_words("Dims", SOUND, &sound_words);
    let fault = of(&longer, &longer_info, &sound_access, short, &sound_tensors);
    assert!(fault.contains("it has 20 bytes, 16 are bound"), "{fault}");
    for (fields, words_said) in WRONG_FIELDS {
        let parameters = ParameterBlock::of_words("Dims", fields, &sound_words);
        let fault = of(&module, &info, &sound_access, parameters, &sound_tensors);
        assert!(fault.contains(words_said), "{fault}");
    }
    let named = ParameterBlock::of_words("Sizes", SOUND, &sound_words);
    let fault = of(&module, &info, &sound_access, named, &sound_tensors);
    assert!(fault.contains("it is a Dims, and Rust binds a Sizes"), "{fault}");
    for (i, access, fault) in [
        (0, Access::Write, "declared Read"),
        (1, Access::Read, "declared Uniform"),
        (2, Access::Read, "declared Write"),
    ] {
        let mut wrong = sound_access;
        wrong[i] = access;
        assert!(said(&wrong, &sound_words, &sound_tensors).contains(fault));
    }
    for (i, tensor, fault) in [
        (0, (64, Dtype::F32), "elements have 2 bytes, those of the tensor 4"),
        (1, (32, Dtype::F32), "it has 48 bytes, the tensor 32"),
        (1, (64, Dtype::F32), "it has 48 bytes, the tensor 64"),
        (2, (64, Dtype::F16), "elements have 4 bytes, those of the tensor 2"),
    ] {
        let mut wrong = sound_tensors;
        wrong[i] = tensor;
        assert!(said(&sound_access, &sound_words, &wrong).contains(fault));
    }
    // What WGSL aligns: a vector after one word is not the second word.
    let text = text.replace("eps: f32, flag: u32", "spare: vec2<u32>, eps: f32");
    let (module, info) = parse(&text).unwrap();
    let words = [7, 0, 0, 1e-5_f32.to_bits(), 0, 0, 0, 0];
    const PAIR: FieldType = FieldType::Array(&FieldType::U32, 2);
    const AS_RUST_LAYS_IT_OUT: &[Field] =
        &[field("rows", FieldType::U32, 0), field("spare", PAIR, 4), field("eps", FieldType::F32, 12)];
    let parameters = ParameterBlock::of_words("Dims", AS_RUST_LAYS_IT_OUT, &words);
    let fault = of(&module, &info, &sound_access, parameters, &sound_tensors);
    assert_eq!(fault, "dims at 0: it has spare: Uint at byte 8, the Rust struct spare: Uint at byte 4");
    const WITH_A_HOLE: &[Field] =
        &[field("rows", FieldType::U32, 0), field("spare", PAIR, 8), field("eps", FieldType::F32, 16)];
    let parameters = ParameterBlock::of_words("Dims", WITH_A_HOLE, &words);
    let fault = of(&module, &info, &sound_access, parameters, &sound_tensors);
    assert_eq!(fault, "dims at 0: spare is at byte 8, not 4");
    assert!(said(&sound_access[..2], &sound_words, &sound_tensors[..2]).contains("y at 3: nothing is bound there"));
    let more = [Access::Read; 4];
    let more = [sound_access.as_slice(), &more[..1]].concat();
    let tensors = [sound_tensors.as_slice(), &sound_tensors[..1]].concat();
    assert!(said(&more, &sound_words, &tensors).contains("{4} are bound and not used"));
}
