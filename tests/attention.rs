//! Every schedule of attention that this adapter can run, forced: reference, gradients, and the bits that are promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{backward, compiles_slowly, engine, words};
use tokenformer::error::Result;
use tokenformer::graph::plan::Plan;
use tokenformer::graph::{Class, Graph, Tensor};
use tokenformer::kernel::{Dtype, Fragment, Fragments, KernelTable, Target};
use tokenformer::ops::attention::source::{Form, Pass};
use tokenformer::ops::attention::{
    Attention, AttentionSchedule, Generated, Rotation, causal_attention, more_cases, rotary_attention, schedule,
};
use tokenformer::ops::{Case, registry, rotary};
use tokenformer::rng::{Rng, Stream};
use tokenformer::runtime::check::{Prepared, check_in};
use tokenformer::runtime::memory::Memory;

/// Each schedule with a description of this adapter as it may be: with subgroups of one size, of any and without, as software
/// and as a GPU, with as much workgroup memory as every device has.
fn forced(schedules: &[AttentionSchedule]) -> Vec<(String, KernelTable)> {
    let own = engine().gpu.target;
    let mut all = Vec::new();
    for &schedule in schedules {
        let mut targets = vec![("", own)];
        match schedule {
            AttentionSchedule::Lanes => {
                targets.push((" without subgroups", Target { subgroup_sizes: [0; 2], ..own }));
                targets.push((" in 16 KiB", Target { workgroup_bytes: 16 * 1024, ..own }));
            }
            AttentionSchedule::Cooperative if own.fragments.best(Dtype::F16).is_none() => continue,
            // Scalars in workgroup memory, as on Apple's GPUs.
            AttentionSchedule::Cooperative => {
                let gpu = Target { software: false, ..own };
                targets.push((" as a GPU", gpu));
                targets.push((" without a subgroup barrier", Target { subgroup_barrier: false, ..gpu }));
                // Fewer or more than there are strips; a workgroup has whole subgroups of the largest size.
                let [_, most] = own.subgroup_sizes;
                let of_any = Target { subgroup_sizes: [most, most.max(32)], ..gpu };
                targets.push((" with subgroups of any size", of_any));
            }
            AttentionSchedule::Software => {}
        }
        for (what, target) in targets {
            all.push((format!("{schedule}{what}"), KernelTable::defaults(target).with_attention(Some(schedule))));
        }
    }
    all
}

/// The schedule a case gets.
fn schedule_of(kernels: &KernelTable, head_width: usize, dtype: Dtype) -> AttentionSchedule {
    let form = Form { head_width: head_width as u32, half: 0, keys: false, dtype, dropout: false };
    schedule(&form, kernels.target(), kernels.attention()).unwrap()
}

fn head_width(case: &Case) -> usize {
    case.name.split(',').next().unwrap().rsplit('x').next().unwrap().parse().unwrap()
}

fn precisions() -> Vec<Dtype> {
    let half = engine().gpu.target.f16;
    [Dtype::F32, Dtype::F16].into_iter().filter(|&dtype| dtype == Dtype::F32 || half).collect()
}

/// What `work` gives, tried again where it took too long: llvmpipe compiles a kernel when it first runs, and on a busy
/// machine a few large ones pass for a GPU that hangs.
fn patiently<T>(work: impl Fn() -> Result<T>) -> T {
    for _ in 0..20 {
        match work() {
            Err(error) if error.to_string().contains("did not finish") => println!("again: {error}"),
            done => return done.unwrap(),
        }
    }
    panic!("a device that does not get done")
}

/// A graph run once, a dispatch at a time, and its tensors `names`.
fn run(g: &Graph, inputs: &[(&str, Vec<u32>)], names: &[&str]) -> Vec<Vec<f32>> {
    let plan = Plan::new(g).unwrap();
    let (memory, programs) = Memory::allocate(engine(), &[&plan]).unwrap();
    for (name, words) in inputs {
        engine().write_all(memory.named(name).unwrap(), words).unwrap();
    }
    (0..programs[0].dispatches()).for_each(|dispatch| engine().run_one(&programs[0], dispatch).unwrap());
    names.iter().map(|name| engine().read(memory.named(name).unwrap()).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    registry().into_iter().filter(|case| case.op == "attention").chain(more_cases()).collect()
}

/// Kernels are compiled for each width: a few cases show what another type or device changes.
const FEW: [&str; 5] = [
    "2x17x3x16",
    "1x130x2x32, rotary 8",
    "2x67x2x64, rotary 16",
    "1x67x2x128, rotary 32",
    "1x70x2x64, cached, rotary 16",
];

/// Whether these kernels are for another device than this.
fn varied(name: &str, kernels: &KernelTable) -> bool {
    name != kernels.attention().unwrap().to_string()
}

/// The shapes that are tried.
fn shapes<T, const N: usize>(all: [T; N], name: &str, kernels: &KernelTable) -> impl Iterator<Item = T> {
    all.into_iter().take(if compiles_slowly() && varied(name, kernels) { 1 } else { N })
}

/// Whether a software driver would take minutes to compile the emulation of matrix units; other widths differ in numbers.
fn emulated(schedule: AttentionSchedule, head_width: usize) -> bool {
    schedule == AttentionSchedule::Cooperative && engine().gpu.target.software && head_width > 32
}

fn matches(schedule: AttentionSchedule) {
    let mut failed = Vec::new();
    for (name, kernels) in forced(&[schedule]) {
        let mut checked = 0;
        let all = precisions().into_iter().flat_map(|precision| cases().into_iter().map(move |case| (case, precision)));
        for (case, precision) in all {
            let wanted = kernels.attention().unwrap();
            let few_in_half = match wanted {
                AttentionSchedule::Software => compiles_slowly(),
                AttentionSchedule::Lanes => true,
                AttentionSchedule::Cooperative => false,
            };
            let others = varied(&name, &kernels) || (few_in_half && precision == Dtype::F16);
            let left_out = (others && !FEW.contains(&case.name.as_str())) || emulated(wanted, head_width(&case));
            if left_out || schedule_of(&kernels, head_width(&case), precision) != wanted {
                continue;
            }
            checked += 1;
            let report = patiently(|| check_in(engine(), &case, &kernels, precision));
            let gradient = report.gradient_error.unwrap_or(0.0);
            println!("{name} {} {}: {:.1e} {gradient:.1e}", precision.name(), case.name, report.nmse);
            if !report.passed {
                failed.push(format!("{name} {} {}: {report:?}", precision.name(), case.name));
            }
        }
        assert!(checked >= 2, "{name}: only {checked} cases");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn software_matches_the_reference() {
    matches(AttentionSchedule::Software);
}

#[test]
fn lanes_match_the_reference() {
    matches(AttentionSchedule::Lanes);
}

/// Where the adapter has matrix units: another test fails where there is no adapter.
#[test]
fn cooperative_matrices_match_the_reference() {
    matches(AttentionSchedule::Cooperative);
}

#[test]
fn every_schedule_gives_the_same_bits_every_time() {
    for (name, kernels) in forced(&AttentionSchedule::ALL) {
        for precision in precisions() {
            let case = more_cases().into_iter().find(|case| case.name == "1x130x2x32, rotary 8").unwrap();
            if schedule_of(&kernels, 32, precision) != kernels.attention().unwrap() {
                continue;
            }
            let prepared = Prepared::in_precision(engine(), &case, &kernels, true, precision).unwrap();
            let bits = || {
                patiently(|| prepared.run(engine()));
                prepared.bits(engine()).unwrap()
            };
            let first = bits();
            assert!(!first.is_empty() && (0..3).all(|_| bits() == first), "{name} {}", precision.name());
        }
    }
}

/// Kernels for subgroups of any size: how many there are, and so how many passes they take or how many are spare, changes no
/// bit; nor is any changed from the kernel for one size, where that is what they are laid out for.
#[test]
fn the_number_of_subgroups_changes_no_bit() {
    let own = engine().gpu.target;
    let Some(Fragment { side, .. }) = own.fragments.best(Dtype::F16) else {
        println!("{} has no matrix units of f16: nothing to check", engine().gpu.describe());
        return;
    };
    let case = more_cases().into_iter().find(|case| case.name == "1x130x2x32, rotary 8").unwrap();
    let form = Form { head_width: 32, half: 4, keys: true, dtype: Dtype::F16, dropout: false };
    let mut compared = 0;
    // Kernels for other sizes differ in numbers: software drivers take long to compile them.
    for (lanes, counts) in [(side, &[4, 2, 1][..]), (2 * side, &[4, 1]), (4 * side, &[4, 1])] {
        let any = counts.iter().map(|&count| {
            let target = Target { subgroup_sizes: [lanes / 2, lanes], invocations: count * lanes, ..own };
            (if count < 4 { format!("-{count}w{lanes}-") } else { format!("-w{lanes}-") }, target)
        });
        // Matrix operations need whole subgroups.
        let any = any.filter(|(_, target)| target.invocations.is_multiple_of(own.subgroup_sizes[1]));
        let one = (own.subgroup_size() == Some(lanes)).then(|| (format!("-s{lanes}-"), own));
        let mut first: Option<Vec<u32>> = None;
        for (wanted, target) in any.chain(one) {
            for pass in Pass::ALL {
                let name = Generated::new(AttentionSchedule::Cooperative, form, pass, &target).unwrap().kernel().file;
                assert!(name.contains(&wanted), "{name}, not {wanted}");
            }
            let kernels = KernelTable::defaults(target).with_attention(Some(AttentionSchedule::Cooperative));
            let prepared = Prepared::in_precision(engine(), &case, &kernels, true, Dtype::F16).unwrap();
            patiently(|| prepared.run(engine()));
            let bits = prepared.bits(engine()).unwrap();
            assert!(bits.iter().any(|&word| word != 0));
            let first = first.get_or_insert_with(|| bits.clone());
            let differ = bits.iter().zip(&*first).filter(|(a, b)| a != b).count();
            assert!(bits.len() == first.len() && differ == 0, "{wanted}: {differ} of {} words differ", bits.len());
            println!("{wanted}: {} words", bits.len());
            compared += 1;
        }
    }
    assert!(compared >= 2, "only {compared} kernels");
}

/// Numbers in an activation of the graph's precision.
fn activation(g: &mut Graph, name: &str, shape: &[usize]) -> Tensor {
    let given = g.state(name, shape);
    let copy = g.activation(name, shape);
    g.cast(given, copy).unwrap();
    copy
}

/// Numbers for a matrix, the first rows of which do not depend on how many there are.
fn numbers(name: &str, rows: usize, width: usize) -> Vec<u32> {
    words(&Rng::named(5, Stream::Test, name).normals(rows * width, 1.0))
}

/// o of `rows` queries from `first` on, over keys and values of `total` rows in a cache of `capacity`.
fn chunk(kernels: &KernelTable, dtype: Dtype, heads: usize, head_width: usize, place: [usize; 4]) -> Vec<f32> {
    let [first, rows, total, capacity] = place;
    let width = heads * head_width;
    let mut g = Graph::forward_only(kernels);
    g.set_precision(dtype);
    let q = activation(&mut g, "q", &[rows, width]);
    let [k, v] = ["k", "v"].map(|name| activation(&mut g, name, &[capacity, width]));
    let position = g.state("run", &[4]);
    let shape = Attention { batch: 1, heads, q_rows: rows, kv_rows: capacity };
    let o = causal_attention(&mut g, [q, k, v], position, shape).unwrap();
    let out = g.statistic("out", &[rows, width]);
    // Sums onto zeros: f16 as f32.
    if dtype == Dtype::F16 {
        g.cast_back(o, out).unwrap()
    } else {
        g.cast(o, out).unwrap()
    }
    g.keep(out, "out");
    let all = numbers("q", total, width);
    let behind = |name: &str| {
        // What was in the cache before: large, and not to be seen.
        let mut all = numbers(name, total, width);
        all.resize(capacity * width, 77.0_f32.to_bits());
        all
    };
    let given = [
        ("q", all[first * width..(first + rows) * width].to_vec()),
        ("k", behind("k")),
        ("v", behind("v")),
        ("run", vec![first as u32, 0, 0, 0]),
    ];
    run(&g, &given, &["out"]).remove(0)
}

#[test]
fn a_row_has_the_same_bits_in_a_full_pass_and_in_chunks_over_a_cache() {
    for (name, kernels) in forced(&AttentionSchedule::ALL) {
        let tried = precisions().into_iter().flat_map(|precision| {
            shapes([(2, 32), (1, 64), (1, 128)], &name, &kernels).map(move |shape| (precision, shape))
        });
        for (precision, (heads, head_width)) in tried {
            let wanted = kernels.attention().unwrap();
            if schedule_of(&kernels, head_width, precision) != wanted || emulated(wanted, head_width) {
                continue;
            }
            let total = 101;
            let full = chunk(&kernels, precision, heads, head_width, [0, total, total, total]);
            assert!(full.iter().all(|x| x.is_finite()) && full.iter().any(|x| x.abs() > 0.1), "{name}");
            let mut first = 0;
            for rows in [1, 37, 5, 57, 1] {
                let part = chunk(&kernels, precision, heads, head_width, [first, rows, total, 160]);
                let width = heads * head_width;
                let same = part.iter().zip(&full[first * width..]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(part.len() == rows * width && same, "{name} {} {head_width}: rows {first}", precision.name());
                first += rows;
            }
            assert_eq!(first, total);
        }
    }
}

/// o, dq, dk and dv with rotation by the attention, or by dispatches of its own ahead.
fn rotated(kernels: &KernelTable, head_width: usize, rotary_width: usize, apart: bool) -> Vec<Vec<f32>> {
    let (batch, heads, rows) = (2, 2, 67);
    let (width, all) = (heads * head_width, batch * rows);
    let mut g = Graph::training(kernels);
    let zeros = g.state("zeros", &[all, width]);
    let qkv = ["q", "k", "v"].map(|name| {
        let given = g.tensor(name, &[all, width], Class::Parameter);
        tokenformer::ops::add::add(&mut g, given, zeros).unwrap()
    });
    let table = g.state("table", &[rows, rotary_width]);
    let position = g.state("run", &[4]);
    let shape = Attention { batch, heads, q_rows: rows, kv_rows: rows };
    let rotation = Rotation { table, width: rotary_width, keys: true };
    let o = if apart {
        for x in &qkv[..2] {
            tokenformer::ops::attention::rotate(&mut g, *x, rotation, position, shape).unwrap();
        }
        causal_attention(&mut g, qkv, position, shape).unwrap()
    } else {
        rotary_attention(&mut g, qkv, position, shape, Some(rotation)).unwrap()
    };
    backward(&mut g, o).unwrap();
    let rotations = g.calls().iter().filter(|call| call.kernel.file == "rotary.wgsl").count();
    let folds = kernels.attention() != Some(AttentionSchedule::Software);
    assert_eq!(rotations, if apart || !folds { 4 } else { 0 });
    g.keep(o, "o");
    for name in ["q", "k", "v"] {
        let grad = g.grad(g.find(name).unwrap()).unwrap();
        g.keep(grad, &format!("d{name}"));
    }
    let given = [
        ("q", numbers("q", all, width)),
        ("k", numbers("k", all, width)),
        ("v", numbers("v", all, width)),
        ("upstream", numbers("upstream", all, width)),
        ("table", words(&rotary::table(rows, rotary_width, 10_000.0))),
    ];
    run(&g, &given, &["o", "dq", "dk", "dv"])
}

#[test]
fn rotating_in_the_kernels_and_ahead_of_them_gives_the_same_bits() {
    for (name, kernels) in forced(&AttentionSchedule::ALL) {
        for (head_width, rotary_width) in shapes([(64, 16), (32, 8), (128, 32)], &name, &kernels) {
            if schedule_of(&kernels, head_width, Dtype::F32) != kernels.attention().unwrap() {
                continue;
            }
            let [inside, apart] = [false, true].map(|apart| rotated(&kernels, head_width, rotary_width, apart));
            for (what, (a, b)) in ["o", "dq", "dk", "dv"].iter().zip(inside.iter().zip(&apart)) {
                let differ = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                assert!(a.iter().any(|x| *x != 0.0) && differ == 0, "{name} {head_width} {what}: {differ} differ");
            }
        }
    }
}

#[test]
fn schedules_follow_device_type_and_head_width() {
    let gpu = Target { subgroup_sizes: [32; 2], f16: true, ..Target::WEBGPU };
    let gpu = Target { workgroup_bytes: 48 * 1024, ..gpu };
    let matrices = Target { fragments: Fragments::of(|f| f.side == 16), ..gpu };
    let small = Target { workgroup_bytes: 16 * 1024, ..matrices };
    // Drivers that choose the size of subgroups.
    let any = |sizes| Target { subgroup_sizes: sizes, ..matrices };
    let radv = Target { workgroup_bytes: 64 * 1024, ..any([32, 64]) };
    let intel = Target { workgroup_bytes: 64 * 1024, ..any([8, 32]) };
    let eight = Fragments::of(|f| f.side == 8);
    let apple = Target { fragments: eight, workgroup_bytes: 32 * 1024, ..any([4, 64]) };
    let software = Target { software: true, ..matrices };
    use AttentionSchedule::{Cooperative, Lanes, Software};
    use Dtype::{F16, F32};
    for (target, head_width, dtype, wanted) in [
        (gpu, 64, F32, Lanes),
        (gpu, 64, F16, Lanes),
        (matrices, 64, F32, Lanes),
        (matrices, 64, F16, Cooperative),
        (matrices, 80, F16, Cooperative),
        (matrices, 128, F16, Cooperative),
        (matrices, 72, F16, Lanes),
        (matrices, 256, F16, Lanes),
        (small, 64, F16, Lanes),
        (radv, 64, F16, Cooperative),
        (radv, 128, F16, Cooperative),
        (radv, 64, F32, Lanes),
        (intel, 64, F16, Cooperative),
        (intel, 128, F16, Cooperative),
        (Target { fragments: eight, ..intel }, 128, F16, Cooperative),
        (apple, 64, F16, Cooperative),
        (apple, 128, F16, Cooperative),
        (apple, 72, F16, Lanes),
        // No size is a multiple of the side of a fragment, or too many lanes would make a whole subgroup.
        (any([4, 8]), 64, F16, Lanes),
        (any([32, 128]), 64, F16, Cooperative),
        (any([32, 512]), 64, F16, Lanes),
        (any([0, 0]), 64, F16, Lanes),
        (gpu, 65, F32, Software),
        (Target::WEBGPU, 64, F32, Lanes),
        (software, 64, F16, Software),
        (software, 128, F32, Software),
        (software, 144, F32, Lanes),
    ] {
        let got = schedule_of(&KernelTable::defaults(target), head_width, dtype);
        assert_eq!(got, wanted, "{head_width} {dtype:?} {target:?}");
    }
    let forced = |schedule| KernelTable::defaults(matrices).with_attention(Some(schedule));
    assert_eq!(schedule_of(&forced(Lanes), 64, F16), Lanes);
    // What cannot take a head width leaves it to the others.
    assert_eq!(schedule_of(&forced(Cooperative), 64, F32), Lanes);
    let form = Form { head_width: 150, half: 0, keys: false, dtype: F32, dropout: false };
    let error = schedule(&form, &matrices, None).unwrap_err().to_string();
    assert!(error.contains("150 channels") && error.contains("multiple of 16"), "{error}");
    for schedule in AttentionSchedule::ALL {
        assert_eq!(schedule.to_string().parse::<AttentionSchedule>().unwrap(), schedule);
    }
    let error = "fast".parse::<AttentionSchedule>().unwrap_err().to_string();
    assert!(error.contains("\"fast\"") && error.contains("use software, lanes or cooperative"), "{error}");
}
