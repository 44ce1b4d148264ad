//! Matrix products as graphs record them: offsets, strides, batches, sums, parts, types, and every way to read and write
//! in vectors. Kernels for GPUs are held against those for software drivers bit by bit, and both against f64.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Ran, engine};
use half::f16;
use std::collections::BTreeSet;
use tokenformer::graph::view::Strided;
use tokenformer::graph::{Class, Graph};
use tokenformer::kernel::{Candidate, Dtype, KernelTable, Layout, ProductKind, Target};
use tokenformer::ops::matmul::candidates::candidates;
use tokenformer::ops::matmul::source::Vectors;
use tokenformer::ops::matmul::{Product, reference};
use tokenformer::rng::{Rng, Stream};
use tokenformer::runtime::check::normalised_error;

/// For software drivers: no workgroup memory, no vectors, no subgroups.
const PLAIN: &str = "lanes8-8x4-u4";
const TILES: [&str; 2] = ["tiles-32x32x8-4x4", "tiles-64x32x8-8x4"];

fn forced(name: &str) -> KernelTable {
    KernelTable::forced(Target { software: false, ..engine().gpu.target }, name.parse().unwrap())
}

/// One operand: what lies in memory, and where its matrices are.
#[derive(Debug, Clone)]
struct Operand {
    dtype: Dtype,
    values: Vec<f32>,
    offset: usize,
    /// From matrix to matrix.
    stride: usize,
    rows: usize,
    columns: usize,
    /// From row to row.
    width: usize,
}

impl Operand {
    /// `count` matrices of `rows` x `columns`, their first element at `offset`, `gap` elements between two.
    fn new(
        rng: &mut Rng,
        dtype: Dtype,
        [rows, columns, width]: [usize; 3],
        count: usize,
        [offset, gap]: [usize; 2],
    ) -> Self {
        let stride = if count > 1 { rows * width + gap } else { 0 };
        let mut values = rng.normals(offset + stride * (count - 1) + rows * width + 3, 1.0);
        if dtype == Dtype::F16 {
            values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        }
        Self { dtype, values, offset, stride, rows, columns, width }
    }

    /// Matrix `z`, its rows one after the other.
    fn dense(&self, z: usize) -> Vec<f32> {
        let row = |r: usize| self.offset + z * self.stride + r * self.width;
        (0..self.rows).flat_map(|r| self.values[row(r)..row(r) + self.columns].to_vec()).collect()
    }

    fn record(&self, g: &mut Graph, name: &str) -> Strided {
        let storage = g.typed(name, &[self.values.len()], self.dtype, Class::State);
        Strided { storage, offset: self.offset, stride: self.stride }
    }
}

/// Floats as the words of a buffer of this type.
fn words(dtype: Dtype, values: &[f32]) -> Vec<u32> {
    if dtype == Dtype::F32 {
        return common::words(values);
    }
    let half = |x: Option<&f32>| u32::from(x.map_or(0, |&x| f16::from_f32(x).to_bits()));
    values.chunks(2).map(|pair| half(pair.first()) | half(pair.get(1)) << 16).collect()
}

/// A product and its operands.
#[derive(Debug, Clone)]
struct Trial {
    product: Product,
    a: Operand,
    b: Operand,
    c: Operand,
}

impl Trial {
    /// All of C's memory, and the names of the kernels.
    fn run(&self, kernel: &str) -> (Vec<f32>, Vec<&'static str>) {
        let mut g = Graph::forward_only(&forced(kernel));
        let [a, b, c] = [(&self.a, "a"), (&self.b, "b"), (&self.c, "c")].map(|(of, name)| of.record(&mut g, name));
        self.product.record(&mut g, a, b, c).unwrap();
        let kernels = g.calls().iter().map(|call| call.kernel.file).collect();
        let inputs =
            [("a", &self.a), ("b", &self.b), ("c", &self.c)].map(|(name, of)| (name, words(of.dtype, &of.values)));
        let ran = Ran::new(&g, &inputs).unwrap();
        let found = if self.c.dtype == Dtype::F32 { ran.read("c") } else { ran.read_halves("c") };
        (found[..self.c.values.len()].to_vec(), kernels)
    }

    /// The dense operands of output `z`, those of a sum joined along k.
    fn joined(&self, z: usize) -> (Vec<f32>, Vec<f32>) {
        let Product { layout, size: [m, n, k], sum, .. } = self.product;
        let of = |operand: &Operand, down: bool, side: usize| {
            let matrices: Vec<Vec<f32>> = (0..sum).map(|y| operand.dense(z + y)).collect();
            if down {
                return matrices.concat();
            }
            (0..side).flat_map(|r| matrices.iter().flat_map(move |x| x[r * k..(r + 1) * k].to_vec())).collect()
        };
        (of(&self.a, layout == Layout::TN, m), of(&self.b, layout != Layout::NT, n))
    }

    /// What `run` must give, bit by bit: each product alone, on dense operands, by a plain kernel; all else in memory as it
    /// was. Also the error of the plain kernel.
    fn expected(&self) -> (Vec<f32>, f64) {
        let Product { layout, size: [m, n, k], sum, count, accumulate, .. } = self.product;
        let (mut memory, size) = (self.c.values.clone(), [m, n, k * sum]);
        let (mut found, mut exact) = (Vec::new(), Vec::new());
        for z in 0..count {
            let (a, b) = self.joined(z);
            let dense = |values: &[f32], of: &Operand| Operand {
                values: values.to_vec(),
                offset: 0,
                stride: 0,
                rows: values.len(),
                columns: 1,
                width: 1,
                ..of.clone()
            };
            let product = Product::new(layout, size).adding(accumulate);
            let before = self.c.dense(z);
            let alone = Trial { product, a: dense(&a, &self.a), b: dense(&b, &self.b), c: dense(&before, &self.c) };
            let c = alone.run(PLAIN).0;
            let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let sums = reference(layout, size, &wide(&a), &wide(&b));
            let added = |(x, old): (&f64, &f32)| x + if accumulate { f64::from(*old) } else { 0.0 };
            exact.extend(sums.iter().zip(&before).map(added));
            found.extend(wide(&c));
            let at = self.c.offset + z * self.c.stride;
            memory[at..at + m * n].copy_from_slice(&c);
        }
        (memory, normalised_error(&found, &exact))
    }

    #[track_caller]
    fn check(&self, kernel: &str) -> Vec<&'static str> {
        let ((found, kernels), (expected, error)) = (self.run(kernel), self.expected());
        let most = if self.c.dtype == Dtype::F16 { 1e-6 } else { 1e-12 };
        assert!(error < most, "{error} {:?}", self.product);
        if let Some(at) = (0..found.len()).find(|&i| found[i].to_bits() != expected[i].to_bits()) {
            let Self { product, a, b, c } = self;
            let places = [a, b, c].map(|of| (of.dtype, of.offset, of.stride, of.width));
            panic!("{kernels:?}: element {at} is {}, not {}: {product:?} {places:?}", found[at], expected[at]);
        }
        kernels
    }
}

/// A random product. `wanted`: which operands can be taken in vectors; without it, whatever the numbers give.
fn random(rng: &mut Rng, layout: Layout, types: [Dtype; 3], wanted: Option<Vectors>) -> Trial {
    let mut below = |n: usize| rng.below(n as u64) as usize;
    let fours = |n: usize| if wanted.is_some() { n.next_multiple_of(4) } else { n };
    let [m, n, k] = [0; 3].map(|_| fours(1 + below(200)));
    let (batch, sum) = [(1, 1), (3, 1), (1, 3)][below(3)];
    let matrices = batch * sum;
    let wider = fours(below(2) * (1 + below(9)));
    let wanted_each = wanted.map(|Vectors { a, b, c }| [a, b, c]);
    let places = [0, 1, 2].map(|i| {
        let gap = fours(below(9));
        match wanted_each {
            Some(each) if !each[i] => [1 + below(3) + 4 * below(3), gap],
            Some(_) => [4 * below(3), gap],
            None => [below(9), gap],
        }
    });
    let accumulate = below(2) > 0;
    let (a_rows, a_columns) = if layout == Layout::TN { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if layout == Layout::NT { (n, k) } else { (k, n) };
    let width = a_columns + wider;
    Trial {
        product: Product::new(layout, [m, n, k]).batch(batch).summed(sum).adding(accumulate).of_columns(width),
        a: Operand::new(rng, types[0], [a_rows, a_columns, width], matrices, places[0]),
        b: Operand::new(rng, types[1], [b_rows, b_columns, b_columns], matrices, places[1]),
        c: Operand::new(rng, types[2], [m, n, n], batch, places[2]),
    }
}

/// Types of A, B and C that this device has.
fn types() -> Vec<[Dtype; 3]> {
    let (s, h) = (Dtype::F32, Dtype::F16);
    let all = [[s; 3], [h, h, s], [h; 3], [s, h, s], [h, s, h]];
    let most = if engine().gpu.target.f16 { all.len() } else { 1 };
    all[..most].to_vec()
}

#[test]
fn tiles_give_the_bits_of_plain_kernels_in_every_combination_of_vectors() {
    let rng = &mut Rng::named(11, Stream::Test, "products in vectors");
    let mut seen = BTreeSet::new();
    for (turn, types) in types().into_iter().enumerate() {
        // Every layout in f32; they differ in the type of what they load and store, not in where.
        let layouts = if turn == 0 { Layout::ALL.to_vec() } else { vec![Layout::ALL[turn % 3]] };
        for layout in layouts {
            for (i, vectors) in Vectors::every().enumerate() {
                let trial = random(rng, layout, types, Some(vectors));
                let kernels = trial.check(TILES[(turn + i) % 2]);
                let suffix = vectors.suffix();
                let is_meant = |name: &&str| {
                    name.split_once("-v").map_or("", |(_, letters)| letters) == suffix.trim_start_matches("-v")
                };
                assert!(kernels.iter().all(is_meant), "{kernels:?} for {suffix}");
                seen.extend(kernels);
            }
        }
    }
    assert!(seen.len() >= 24 + 8 * (types().len() - 1), "{seen:?}");
}

/// Each block that a GPU may choose, in one layout in vectors and in another without.
#[test]
fn every_block_gives_the_bits_of_plain_kernels() {
    let rng = &mut Rng::named(15, Stream::Test, "products of every block");
    let product = ProductKind { layout: Layout::NN, size: [64; 3], half: false, pair: false };
    let list = candidates(&Target::WEBGPU, product, true);
    assert!(list.len() > 8, "{list:?}");
    for (turn, candidate) in list.into_iter().enumerate() {
        for (layout, vectors) in [(turn, Vectors::ALL), (turn + 1, Vectors::NONE)] {
            random(rng, Layout::ALL[layout % 3], [Dtype::F32; 3], Some(vectors)).check(&candidate.to_string());
        }
    }
}

#[test]
fn tiles_give_the_bits_of_plain_kernels_at_random_sizes() {
    let rng = &mut Rng::named(12, Stream::Test, "products of random sizes");
    for turn in 0..40 {
        let (layout, types) = (Layout::ALL[turn % 3], types()[turn % types().len()]);
        random(rng, layout, types, None).check(TILES[turn % 2]);
    }
}

/// Parts of 16 terms, each computed alone by a plain kernel and added up here.
#[test]
fn parts_are_added_up_in_ascending_order() {
    let rng = &mut Rng::named(13, Stream::Test, "products in parts");
    for turn in 0..12 {
        let (layout, types) = (Layout::ALL[turn % 3], types()[turn % types().len()]);
        let wanted = [None, Some(Vectors::ALL)][turn / 3 % 2];
        let mut trial = random(rng, layout, types, wanted);
        trial.product.sum = 1;
        let Product { size: [m, n, k], count, accumulate, .. } = trial.product;
        let (found, kernels) = trial.run("tiles-32x32x8-4x4-k16");
        assert_eq!(kernels.len(), if k > 16 { 2 } else { 1 }, "{kernels:?}");
        let mut expected = trial.c.values.clone();
        for z in 0..count {
            let at = trial.c.offset + z * trial.c.stride;
            let mut sums = if accumulate { trial.c.dense(z) } else { vec![0.0; m * n] };
            let (a, b) = trial.joined(z);
            for first in (0..k).step_by(16) {
                let terms = 16.min(k - first);
                let range = |values: &[f32], down: bool, side: usize| -> Vec<f32> {
                    if down {
                        return values[first * side..(first + terms) * side].to_vec();
                    }
                    (0..side).flat_map(|r| values[r * k + first..r * k + first + terms].to_vec()).collect()
                };
                let dense = |values: Vec<f32>, dtype| Operand {
                    dtype,
                    offset: 0,
                    stride: 0,
                    rows: values.len(),
                    columns: 1,
                    width: 1,
                    values,
                };
                let part = Trial {
                    product: Product::new(layout, [m, n, terms]),
                    a: dense(range(&a, layout == Layout::TN, m), types[0]),
                    b: dense(range(&b, layout != Layout::NT, n), types[1]),
                    c: dense(vec![0.0; m * n], Dtype::F32),
                };
                sums.iter_mut().zip(part.run(PLAIN).0).for_each(|(sum, part)| *sum += part);
            }
            let rounded = |x: f32| if types[2] == Dtype::F16 { f16::from_f32(x).to_f32() } else { x };
            expected[at..at + m * n].iter_mut().zip(sums).for_each(|(to, sum)| *to = rounded(sum));
        }
        let wrong = (0..found.len()).find(|&i| found[i].to_bits() != expected[i].to_bits());
        assert_eq!(wrong, None, "{:?} {types:?}", trial.product);
    }
}

/// What growth rests on: a longer sum whose new terms are zeros has the same bits, whole, in parts and over a batch.
#[test]
fn zeros_appended_along_k_change_no_bit() {
    let rng = &mut Rng::named(14, Stream::Test, "products that grow");
    let (m, n, k, longer) = (37, 44, 40, 70);
    for (layout, kernel, sum) in Layout::ALL.into_iter().flat_map(|layout| {
        [(TILES[0], 1), (TILES[0], 3), ("tiles-32x32x8-4x4-k16", 1), (PLAIN, 1)]
            .map(|(kernel, sum)| (layout, kernel, sum))
    }) {
        let operand = |rng: &mut Rng, shape: [usize; 2], count| {
            Operand::new(rng, Dtype::F32, [shape[0], shape[1], shape[1]], count, [0, 0])
        };
        let shape = |down: bool, k: usize, side: usize| if down { [k, side] } else { [side, k] };
        let (a_down, b_down) = (layout == Layout::TN, layout != Layout::NT);
        let small = Trial {
            product: Product::new(layout, [m, n, k]).summed(sum),
            a: operand(rng, shape(a_down, k, m), sum),
            b: operand(rng, shape(b_down, k, n), sum),
            c: operand(rng, [m, n], 1),
        };
        // New terms: any numbers in A, zeros in B.
        let mut large = Trial {
            product: Product::new(layout, [m, n, longer]).summed(sum),
            a: operand(rng, shape(a_down, longer, m), sum),
            b: operand(rng, shape(b_down, longer, n), sum),
            c: small.c.clone(),
        };
        large.b.values.fill(0.0);
        for (to, from, down, side) in [(&mut large.a, &small.a, a_down, m), (&mut large.b, &small.b, b_down, n)] {
            for (z, i, r) in (0..sum).flat_map(|z| (0..k).flat_map(move |i| (0..side).map(move |r| (z, i, r)))) {
                let at = |of: &Operand, k: usize| z * of.stride + if down { i * side + r } else { r * k + i };
                let (new, old) = (at(to, longer), at(from, k));
                to.values[new] = from.values[old];
            }
        }
        let bits = |trial: &Trial| trial.run(kernel).0.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(&small), bits(&large), "{layout:?} {kernel} {sum}");
    }
}

/// Two trials of one product whose A lie in one tensor, and whose C: all but the operands B of the second are neighbours.
fn random_pair(rng: &mut Rng, layout: Layout, types: [Dtype; 3], wanted: Option<Vectors>) -> [Trial; 2] {
    let mut first = random(rng, layout, types, wanted);
    first.product.sum = 1;
    let mut second = first.clone();
    // As many elements as keep what can be read in vectors, and some that do not where nothing is wanted.
    let gap = if wanted.is_some() { 8 } else { 3 };
    for (first, second, dtype) in [(&mut first.a, &mut second.a, types[0]), (&mut first.c, &mut second.c, types[2])] {
        second.offset += first.values.len().next_multiple_of(4) + gap;
        let mut values = rng.normals(second.offset + first.values.len() + 3, 1.0);
        if dtype == Dtype::F16 {
            values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        }
        first.values.clone_from(&values);
        second.values = values;
    }
    // Of the second, all may share one B.
    let count = if rng.below(2) > 0 { 1 } else { second.product.count };
    let Operand { rows, columns, width, offset, .. } = second.b;
    second.b = Operand::new(rng, types[1], [rows, columns, width], count, [offset + 8, 4]);
    [first, second]
}

/// All of C's memory after a pair, and the names of the kernels.
fn run_pair([first, second]: &[Trial; 2], kernel: &str) -> (Vec<f32>, Vec<&'static str>) {
    let mut g = Graph::forward_only(&forced(kernel));
    let named = [(&first.a, "a"), (&first.b, "b"), (&second.b, "b2"), (&first.c, "c")];
    let [a, b, b2, c] = named.map(|(of, name)| of.record(&mut g, name));
    let [a2, c2] =
        [(a, &second.a), (c, &second.c)].map(|(first, of)| Strided { offset: of.offset, stride: of.stride, ..first });
    first.product.record_pair(&mut g, [a, b, c], [a2, b2, c2]).unwrap();
    let kernels = g.calls().iter().map(|call| call.kernel.file).collect();
    let ran = Ran::new(&g, &named.map(|(of, name)| (name, words(of.dtype, &of.values)))).unwrap();
    let found = if first.c.dtype == Dtype::F32 { ran.read("c") } else { ran.read_halves("c") };
    (found[..first.c.values.len()].to_vec(), kernels)
}

/// Tiles, whole and in parts, and what matrix units this device has.
fn pairing_kernels(half: bool) -> Vec<String> {
    let mut kernels: Vec<String> = TILES.iter().map(|name| (*name).to_owned()).collect();
    kernels.push(format!("{}-k16", TILES[0]));
    let target = engine().gpu.target;
    if let Some(fragment) = target.fragments.best(if half { Dtype::F16 } else { Dtype::F32 }) {
        for (block, depth, direct, chunk) in
            [([16, 16], 8, false, 0), ([32, 16], 16, false, 32), ([16, 16], 8, true, 0)]
        {
            let subgroups = [2, 2];
            let lanes = target.subgroup_size().unwrap_or(32);
            let [block, depth] = [block, [depth; 2]].map(|sizes| sizes.map(|n| n * fragment.side / 8));
            let depth = depth[0];
            let kernel = Candidate::Cooperative { fragment, block, depth, subgroups, lanes, direct, chunk };
            kernels.push(kernel.to_string());
        }
    }
    kernels
}

/// Two batches of products as one dispatch have the bits of two, whichever C comes first in memory.
#[test]
fn a_pair_has_the_bits_of_two_products() {
    let rng = &mut Rng::named(16, Stream::Test, "pairs of products");
    let mut seen = BTreeSet::new();
    for (turn, types) in types().into_iter().cycle().take(9).enumerate() {
        let half = types[..2] == [Dtype::F16; 2];
        for (i, kernel) in pairing_kernels(half).into_iter().enumerate() {
            if kernel.contains("cooperative") && types[0] != types[1] {
                continue;
            }
            let layout = [Layout::TN, Layout::ALL[(turn + i) % 3]][turn % 2];
            let of_b = Vectors { b: true, ..Vectors::NONE };
            let wanted = [None, Some(Vectors::ALL), Some(of_b)][(turn + i) % 3];
            let mut pair = random_pair(rng, layout, types, wanted);
            if (turn + i) % 4 == 0 {
                pair.swap(0, 1);
            }
            let (found, kernels) = run_pair(&pair, &kernel);
            let cut = kernel.split_once("-k").map_or(0, |(_, terms)| terms.parse().unwrap());
            let in_parts = cut > 0 && pair[0].product.size[2] > cut;
            let is_one = kernels[0].contains("-pair");
            assert!(is_one || wanted.is_none(), "{kernels:?}");
            if is_one {
                assert_eq!(kernels.len(), if in_parts { 2 } else { 1 }, "{kernel}: {kernels:?}");
                assert!(!kernels[0].contains("direct"), "{kernels:?}");
            }
            let [first, mut second] = pair;
            second.c.values = first.run(&kernel).0;
            let expected = second.run(&kernel).0;
            assert_ne!(second.c.values, expected, "the second changes nothing");
            let wrong: Vec<usize> = (0..found.len()).filter(|&i| found[i].to_bits() != expected[i].to_bits()).collect();
            let shown: Vec<_> = wrong.iter().take(6).map(|&i| (i, found[i], expected[i])).collect();
            let places = [&first.c, &second.c].map(|c| (c.offset, c.stride));
            assert!(wrong.is_empty(), "{kernels:?}: {:?} {places:?}: {} as {shown:?}", first.product, wrong.len());
            seen.extend(kernels.into_iter().filter(|name| name.contains("-pair")));
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
}

/// What cannot be one dispatch is two: other strides, another tensor, a device of another kind.
#[test]
fn products_that_do_not_lie_alike_are_two_dispatches() {
    let target = Target { software: false, ..engine().gpu.target };
    let recorded = |kernels: &KernelTable, second: fn(Strided) -> Strided| {
        let mut g = Graph::forward_only(kernels);
        let [a, b, c, other] = ["a", "b", "c", "other"].map(|name| g.state(name, &[1200]));
        let at = |storage, offset, stride| Strided { storage, offset, stride };
        let first = [at(a, 0, 144), b.into(), at(c, 0, 144)];
        let second = [at(a, 500, 144), other.into(), second(at(c, 500, 144))];
        Product::new(Layout::TN, [12, 12, 12]).batch(3).record_pair(&mut g, first, second).map(|()| g.calls().len())
    };
    let gpu = KernelTable::defaults(target);
    assert_eq!(recorded(&gpu, |c| c).unwrap(), 1);
    assert_eq!(recorded(&gpu, |c| Strided { stride: 148, ..c }).unwrap(), 2);
    assert!(recorded(&gpu, |c| Strided { offset: 769, ..c }).unwrap_err().to_string().starts_with("C of a product"));
    assert_eq!(recorded(&KernelTable::forced(target, PLAIN.parse().unwrap()), |c| c).unwrap(), 2);
    assert_eq!(recorded(&KernelTable::defaults(Target { software: true, ..target }), |c| c).unwrap(), 2);
}
