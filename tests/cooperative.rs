//! Kernels for matrix units, held against sums in f64 and against each other, bit by bit, where an adapter has such units:
//! Mesa's lavapipe emulates those of 8 x 8 from version 25 on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use half::f16;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::gpu::engine::Engine;
use tokenformer::graph::plan::Plan;
use tokenformer::graph::view::Strided;
use tokenformer::graph::{Class, Graph};
use tokenformer::kernel::{Candidate, Dtype, Fragment, Fragments, KernelTable, Layout, Target};
use tokenformer::ops::matmul::source::{ProductForm, Types, Vectors};
use tokenformer::ops::matmul::{Product, candidates};
use tokenformer::runtime::check::normalised_error;
use tokenformer::runtime::memory::Memory;

/// A product, and how its operands lie in memory.
#[derive(Debug, Clone, Copy)]
struct Setting {
    layout: Layout,
    size: [usize; 3],
    /// Elements before the first of each operand, and after each row of A.
    lead: usize,
    pad: usize,
    count: usize,
    sum: usize,
    accumulate: bool,
    half_result: bool,
}

/// Elements that no product writes, around those that it does.
const UNTOUCHED: f32 = 77.0;

impl Setting {
    fn new(layout: Layout, size: [usize; 3]) -> Self {
        Self { layout, size, lead: 0, pad: 0, count: 1, sum: 1, accumulate: false, half_result: false }
    }

    /// Elements of a row of A as stored, and of one matrix of each operand.
    fn widths(&self) -> (usize, [usize; 3]) {
        let [m, n, k] = self.size;
        let (rows, columns) = if self.layout == Layout::TN { (k, m) } else { (m, k) };
        (columns + self.pad, [rows * (columns + self.pad), k * n, m * n])
    }

    fn a_at(&self, z: usize, row: usize, i: usize) -> usize {
        let (width, [matrix, ..]) = self.widths();
        let inside = if self.layout == Layout::TN { i * width + row } else { row * width + i };
        self.lead + z * matrix + inside
    }

    fn b_at(&self, z: usize, i: usize, column: usize) -> usize {
        let [_, n, k] = self.size;
        let inside = if self.layout == Layout::NT { column * k + i } else { i * n + column };
        self.lead + z * k * n + inside
    }

    /// The elements of C that a product writes.
    fn written(&self) -> std::ops::Range<usize> {
        let (_, [_, _, matrix]) = self.widths();
        self.lead..self.lead + self.count * matrix
    }

    /// Sums in f64, products ascending.
    fn expected(&self, a: &[f32], b: &[f32], before: &[f32]) -> Vec<f64> {
        let ([m, n, k], mut c) = (self.size, before.iter().copied().map(f64::from).collect::<Vec<_>>());
        for (z, e) in (0..self.count).flat_map(|z| (0..m * n).map(move |e| (z, e))) {
            let (row, column) = (e / n, e % n);
            let terms = (0..self.sum).flat_map(|y| (0..k).map(move |i| (z + y, i)));
            let sum: f64 =
                terms.map(|(y, i)| f64::from(a[self.a_at(y, row, i)]) * f64::from(b[self.b_at(y, i, column)])).sum();
            let place = &mut c[self.lead + z * m * n + e];
            *place = if self.accumulate { *place + sum } else { sum };
        }
        c
    }

    /// Everything in the buffer of C after the product, as the device computes it.
    fn run(&self, engine: &Engine, candidate: Candidate, [a, b, c]: [&[f32]; 3], operand: Dtype) -> Vec<f32> {
        let target = Target { software: false, ..engine.gpu.target };
        let mut g = Graph::forward_only(&KernelTable::forced(target, candidate));
        let result = if self.half_result { Dtype::F16 } else { Dtype::F32 };
        let [ta, tb, tc] = [("a", a.len(), operand), ("b", b.len(), operand), ("c", c.len(), result)]
            .map(|(name, len, dtype)| g.typed(name, &[len], dtype, Class::State));
        let (width, [a_matrix, b_matrix, c_matrix]) = self.widths();
        let several = self.count * self.sum > 1;
        let even = |storage, matrix| Strided { storage, offset: self.lead, stride: if several { matrix } else { 0 } };
        let c_even = Strided { stride: if self.count > 1 { c_matrix } else { 0 }, ..even(tc, c_matrix) };
        let product = Product::new(self.layout, self.size).adding(self.accumulate).batch(self.count);
        let product = product.summed(self.sum).of_columns(width);
        product.record(&mut g, even(ta, a_matrix), even(tb, b_matrix), c_even).unwrap();
        let plan = Plan::new(&g).unwrap();
        assert!(plan.calls[0].kernel.name().contains("cooperative"), "{}", plan.calls[0].kernel.name());
        let (memory, programs) = Memory::allocate(engine, &[&plan]).unwrap();
        for (name, values, dtype) in [("a", a, operand), ("b", b, operand), ("c", c, result)] {
            let block = memory.named(name).unwrap();
            match dtype {
                Dtype::F32 => engine.write_all(block, values).unwrap(),
                Dtype::F16 => {
                    let mut halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
                    halves.resize(halves.len().next_multiple_of(2), f16::ZERO);
                    engine.write_all(block, &halves).unwrap();
                }
            }
        }
        engine.run(&programs[0]).unwrap();
        let block = memory.named("c").unwrap();
        match result {
            Dtype::F32 => engine.read(block).unwrap(),
            Dtype::F16 => engine.read_halves(block).unwrap().into_iter().map(|x| f16::from_bits(x).to_f32()).collect(),
        }
    }

    /// The operands and what C holds before: exact in f16, without a pattern that sums could hide.
    fn data(&self) -> [Vec<f32>; 3] {
        let (_, matrices) = self.widths();
        let value = |seed: usize, i: usize| {
            let mixed = (i as u32 + 1).wrapping_mul(0x9e37_79b9) ^ (seed as u32).wrapping_mul(0x85eb_ca6b);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d);
            ((mixed ^ (mixed >> 12)) >> 22) as f32 / 1024.0 - 0.5
        };
        let of = |seed: usize, len: usize| (0..len).map(|i| value(seed, i)).collect::<Vec<f32>>();
        let (several, tail) = (self.count * self.sum, 9);
        let [a, b] = [0, 1].map(|i| of(i, self.lead + several * matrices[i] + tail));
        let mut c = of(2, self.lead + self.count * matrices[2] + tail);
        let written = self.written();
        (0..c.len()).filter(|i| !written.contains(i)).for_each(|i| c[i] = UNTOUCHED);
        [a, b, c]
    }
}

/// Every form of storage in every layout: inside and at edges, aligned or not, batches, sums, parts of rows.
fn settings() -> Vec<Setting> {
    let mut list = Vec::new();
    for layout in Layout::ALL {
        let of = |size| Setting::new(layout, size);
        let half = |setting| Setting { half_result: true, ..setting };
        list.extend([
            of([1, 1, 1]),
            of([64, 96, 64]),
            half(of([64, 96, 64])),
            Setting { accumulate: true, ..of([64, 64, 32]) },
            half(Setting { accumulate: true, lead: 4, ..of([70, 131, 45]) }),
            Setting { lead: 8, count: 3, ..of([40, 36, 20]) },
            Setting { lead: 3, count: 2, accumulate: true, ..of([33, 64, 100]) },
            Setting { lead: 1, ..of([64, 64, 64]) },
            half(Setting { pad: 4, sum: 3, ..of([36, 68, 52]) }),
            Setting { pad: 1, sum: 2, accumulate: true, ..of([64, 64, 96]) },
            Setting { pad: 24, lead: 128, ..of([128, 64, 136]) },
            Setting { accumulate: true, ..of([35, 29, 150]) },
        ]);
    }
    list
}

/// Of few workgroups, so that each computes several blocks.
fn engine() -> Engine {
    Engine::new(Gpu::open(&AdapterRequest::default()).unwrap()).unwrap().with_most_groups(5)
}

/// Those of 8 x 8 that the adapter multiplies.
fn fragments(engine: &Engine) -> Vec<Fragment> {
    let fragments: Vec<_> = engine.gpu.target.fragments.iter().filter(|fragment| fragment.side == 8).collect();
    if fragments.is_empty() {
        println!("{} has no matrix units of 8 x 8: nothing to check", engine.gpu.describe());
    }
    fragments
}

/// Kernels of 8 x 8 fragments that a software driver compiles in a few seconds, the plainest first: laid out for subgroups
/// of their size, for half of it and for four times it, from storage, in other blocks, and in two turns.
fn small(operand: Dtype) -> Vec<Candidate> {
    let one = |block, depth, subgroups, lanes, direct| Candidate::Cooperative {
        fragment: Fragment { side: 8, operand },
        block,
        depth,
        subgroups,
        lanes,
        direct,
        chunk: 0,
    };
    vec![
        one([16, 16], 8, [2, 2], 8, false),
        one([16, 16], 8, [2, 2], 4, false),
        one([16, 16], 8, [2, 2], 32, false),
        one([16, 16], 8, [2, 2], 8, true),
        one([8, 16], 8, [1, 1], 32, true),
        one([16, 32], 16, [2, 2], 32, false),
        one([256, 8], 24, [32, 1], 16, false),
    ]
}

#[test]
fn every_form_is_right_and_all_shapes_give_the_same_bits() {
    let engine = engine();
    let mut checked = 0;
    for fragment in fragments(&engine) {
        for (setting, chunk) in settings().into_iter().flat_map(|setting| [(setting, 0), (setting, 48)]) {
            // A sum over a batch is not cut.
            if chunk > 0 && (setting.half_result || setting.sum > 1 || setting.size[2] < 2 * chunk as usize) {
                continue;
            }
            let [a, b, before] = setting.data();
            let expected = setting.expected(&a, &b, &before);
            let mut first: Option<Vec<f32>> = None;
            for candidate in small(fragment.operand).into_iter().map(|kind| kind.chunked(chunk)) {
                let found = setting.run(&engine, candidate, [&a, &b, &before], fragment.operand);
                let exact: Vec<f64> = found.iter().copied().map(f64::from).collect();
                let most = if setting.half_result { 1e-6 } else { 1e-12 };
                let written = setting.written();
                let error = normalised_error(&exact[written.clone()], &expected[written.clone()]);
                assert!(error < most, "{candidate} {setting:?}: {error}");
                let intact = |i: usize| written.contains(&i) || found[i] == UNTOUCHED;
                assert!((0..found.len()).all(intact), "{candidate} {setting:?}");
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let first = first.get_or_insert_with(|| found.clone());
                assert!(bits(first) == bits(&found), "{candidate} gives other bits in {setting:?}");
                checked += 1;
            }
        }
    }
    println!("{}: {checked} products", engine.gpu.describe());
}

/// Rows, columns and terms of zeros: what was there keeps its bits, also where the sum is cut.
#[test]
fn appended_zeros_change_no_bit() {
    let engine = engine();
    for fragment in fragments(&engine) {
        let kinds = small(fragment.operand).into_iter().take(2);
        let kinds = kinds.flat_map(|kind| [kind, kind.chunked(32)]);
        for (candidate, layout) in kinds.flat_map(|kind| Layout::ALL.map(|layout| (kind, layout))) {
            let (old, new) = (Setting::new(layout, [20, 17, 70]), Setting::new(layout, [37, 28, 140]));
            let [a, b, c] = old.data();
            let [mut grown_a, mut grown_b, grown_c] = new.data().map(|values| vec![0.0; values.len()]);
            let [m, n, k] = old.size;
            for i in 0..k {
                (0..m).for_each(|row| grown_a[new.a_at(0, row, i)] = a[old.a_at(0, row, i)]);
                (0..n).for_each(|column| grown_b[new.b_at(0, i, column)] = b[old.b_at(0, i, column)]);
            }
            let small = old.run(&engine, candidate, [&a, &b, &c], fragment.operand);
            let large = new.run(&engine, candidate, [&grown_a, &grown_b, &grown_c], fragment.operand);
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let (before, after) = (small[row * n + column], large[row * new.size[1] + column]);
                assert_eq!(before.to_bits(), after.to_bits(), "{candidate} {layout:?} ({row}, {column})");
            }
        }
    }
}

/// What a candidate says of its workgroup memory is what its texts declare, in the layout that needs the most.
#[test]
fn workgroup_bytes_are_those_of_the_text() {
    let fragments = Fragment::ALL.into_iter();
    let numbers = fragments.flat_map(|f| [([128, 128], 32, [2, 2]), ([64, 32], 32, [1, 2])].map(|shape| (f, shape)));
    let numbers =
        numbers.chain([(Fragment::ALL[0], ([128, 256], 32, [2, 4])), (Fragment::ALL[1], ([256, 8], 24, [32, 1]))]);
    for (fragment, (block, depth, subgroups)) in numbers {
        let candidate =
            Candidate::Cooperative { fragment, block, depth, subgroups, lanes: 32, direct: false, chunk: 0 };
        let declared = Layout::ALL.map(|layout| {
            let types = Types { a: fragment.operand, b: fragment.operand, c: Dtype::F32 };
            declared(candidates::kernel(candidate, layout, types, Vectors::ALL, ProductForm::Whole).text.unwrap())
        });
        assert_eq!(declared.into_iter().max(), Some(candidate.workgroup_bytes()), "{candidate}: {declared:?}");
    }
    let shared = |name: &str| name.parse::<Candidate>().unwrap().workgroup_bytes();
    assert!(shared("cooperative16-128x128x32-2x2-w32") <= 23 * 1024);
    // More than every device has.
    let least = Target { subgroup_sizes: [32; 2], f16: true, fragments: Fragments::of(|_| true), ..Target::WEBGPU };
    let most = Target { workgroup_bytes: 32 * 1024, ..least };
    let large: Candidate = "cooperative16-128x128x32-2x2-w32".parse().unwrap();
    assert!(!large.fits(&least) && large.fits(&most));
    assert!("cooperative16-64x64x32-2x2-w32".parse::<Candidate>().unwrap().fits(&least));
}

/// Bytes of the workgroup variables of a text.
fn declared(text: &str) -> u32 {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(text)));
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let shared = module.global_variables.iter().filter(|(_, it)| it.space == naga::AddressSpace::WorkGroup);
    shared.map(|(_, variable)| layouter[variable.ty].size).sum()
}
