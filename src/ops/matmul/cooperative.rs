//! Products on matrix units, accumulated in f32: for GPUs that have them.
//!
//! A workgroup computes a block of C, cut into one warp tile for each subgroup it is laid out for. Tiles of A and B are
//! staged in workgroup memory as they lie in storage; each subgroup multiplies fragments out of them into accumulators
//! that never leave its registers until the sum is done. One buffer, and nothing fetched ahead: a second buffer took 45 %
//! on an H200, fetching ahead 4 %.
//!
//! A driver chooses the size of subgroups. Where it makes fewer than there are warp tiles, they take several passes over
//! the block; where it makes more, the spare ones compute the last warp tile again, for matrix operations must be met by
//! all. The bits depend on neither, nor on the block: each output is a sum of products of fragments, k ascending.

mod result;
mod staging;

use super::source::{Code, ProductForm, Types, Vectors, begin_blocks, block_loop, quad_loads, sum_loop};
use crate::kernel::{Dtype, Fragment, Layout, Staging};

/// The numbers of [`crate::kernel::Candidate::Cooperative`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Cooperative {
    pub fragment: Fragment,
    pub block: [u32; 2],
    pub depth: u32,
    pub subgroups: [u32; 2],
    pub lanes: u32,
    pub direct: bool,
}

/// One kernel: its numbers, and what follows from them.
struct Text {
    numbers: Cooperative,
    layout: Layout,
    types: Types,
    /// What is bound as vectors.
    bound: Vectors,
    staging: Staging,
    /// Elements of an element of workgroup memory: 4, or 1 where fragments are loaded through pointers to scalars.
    unit: u32,
    /// Fragments of a warp tile, down and across.
    fragments: [u32; 2],
    /// Whether fragments of A and B are loaded from storage where they lie inside.
    direct: bool,
    /// Whether fragments of C are stored to storage where they lie inside.
    plain: bool,
    form: ProductForm,
    /// Whether there are two operands B, each for one half of the batch.
    pair: bool,
}

/// Where fragments of an operand are loaded from.
struct Source {
    role: char,
    /// The array, and elements of an element of it.
    array: &'static str,
    unit: u32,
    /// Elements from row to row.
    pitch: Pitch,
    /// The first element, as a term of a sum.
    base: &'static str,
    /// The first row (of A) or column (of B) of C, and the first term.
    output: &'static str,
    term: &'static str,
    /// Whether rows, as stored, are of outputs; otherwise they are of terms.
    outputs_down: bool,
}

#[derive(Clone, Copy)]
enum Pitch {
    Elements(u32),
    Stride(&'static str),
}

impl Source {
    /// The fragment from output `output` and term `term` of the warp tile on.
    fn load(&self, fragment: Fragment, output: u32, term: u32) -> String {
        let Self { role, array, unit, base, .. } = *self;
        let Fragment { side, operand } = fragment;
        let (output, term) = (plus(self.output, output), plus(self.term, term));
        let (row, column) = if self.outputs_down { (output, term) } else { (term, output) };
        let pitch = match self.pitch {
            Pitch::Elements(elements) => format!("{}u", elements / unit),
            Pitch::Stride(stride) => stride.to_owned(),
        };
        let column = if unit > 1 { format!("({column}) / {unit}u") } else { column };
        // `coopLoadT` reads row by row, `coopLoad` column by column.
        let load = if (role == 'A') == self.outputs_down { "coopLoadT" } else { "coopLoad" };
        let operand = operand.name();
        format!(
            "{load}<coop_mat{side}x{side}<{operand}, {role}>>(&{array}[{base}({row}) * {pitch} + {column}], {pitch})"
        )
    }
}

impl Cooperative {
    fn invocations(&self) -> u32 {
        self.warp_tiles() * self.lanes
    }

    fn warp_tiles(&self) -> u32 {
        self.subgroups[0] * self.subgroups[1]
    }

    /// The WGSL. `vectors`: what may be read or written four elements at a time.
    pub(super) fn generate(&self, name: &str, layout: Layout, types: Types, vectors: Vectors, form: ProductForm) -> String {
        let pair = form == ProductForm::Pair;
        let Self { fragment, block, depth, subgroups, .. } = *self;
        // Metal loads and stores 8 x 8 matrices through pointers to scalars only; other drivers are faster with vectors.
        let scalars = fragment.side == 8;
        let stored = |dtype| dtype == fragment.operand;
        let direct = self.direct && !pair && stored(types.a) && stored(types.b);
        let plain = vectors.c && types.c == Dtype::F32;
        let bound = Vectors { a: vectors.a && !direct, b: vectors.b && !direct, c: vectors.c && !(plain && scalars) };
        let text = Text {
            numbers: *self,
            layout,
            types,
            bound,
            staging: Staging::new(layout, fragment, block, depth, self.warp_tiles()),
            unit: if scalars { 1 } else { 4 },
            fragments: [0, 1].map(|i| block[i] / subgroups[i] / fragment.side),
            direct,
            plain,
            form,
            pair,
        };
        text.write(name)
    }
}

impl Text {
    fn write(&self, name: &str) -> String {
        let Cooperative { fragment: Fragment { side, operand }, block: [rows, columns], depth, .. } = self.numbers;
        let directives = "enable wgpu_cooperative_matrix;";
        let mut code = begin_blocks(name, self.layout, self.types, self.bound, directives, self.form);
        code.push(quad_loads(self.layout, self.types, self.bound, self.pair));
        let Staging { a, b, slots, .. } = self.staging;
        let array = |elements: u32, dtype: Dtype| match self.unit {
            1 => format!("array<{}, {elements}>", dtype.name()),
            unit => format!("array<vec{unit}<{}>, {}>", dtype.name(), elements / unit),
        };
        code.push(format!(
            "var<workgroup> sh_a: {};
            var<workgroup> sh_b: {};
            var<workgroup> sh_c: {}; // fragments of C

            @compute @workgroup_size({})
            fn product(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            @builtin(subgroup_id) subgroup: u32,
            @builtin(num_subgroups) subgroups: u32,
            ) {{
            {}",
            array(a.rows * a.pitch, operand),
            array(b.rows * b.pitch, operand),
            array(slots * side * side, Dtype::F32),
            self.numbers.invocations(),
            block_loop(self.numbers.block, &self.passes(), self.pair),
        ));
        code.push(format!(
            "let whole = row0 + {rows}u <= dims.m && column0 + {columns}u <= dims.n;
            for (var pass_first = 0u; pass_first < {}u; pass_first += present) {{",
            self.numbers.warp_tiles(),
        ));
        code.push(self.warp_tile());
        for (y, x) in self.pairs() {
            code.push(format!("var acc{y}_{x} = coop_mat{side}x{side}<f32, C>();"));
        }
        code.push(sum_loop(self.pair));
        let staged_from = if self.direct {
            // Vulkan wants rows that start at multiples of 16 bytes. naga refuses matrix operations in branches.
            let unit = 16 / operand.bytes();
            code.push(format!(
                "let near = whole && (a_base | dims.a_stride | b_base | dims.b_stride) % {unit}u == 0u;
                let far = select(first, end - (end - first) % {depth}u, near);
                for (var i0 = first; i0 < far; i0 += {depth}u) {{"
            ));
            self.multiply(&mut code, &self.storage_sources());
            code.push("}");
            "far"
        } else {
            "first"
        };
        code.push(format!("for (var i0 = {staged_from}; i0 < end; i0 += {depth}u) {{\nworkgroupBarrier();"));
        self.stage(&mut code);
        code.push("workgroupBarrier();");
        self.multiply(&mut code, &self.tile_sources());
        code.push("}\n}");
        self.results(&mut code);
        code.push("}\n}\n}");
        code.finish()
    }

    /// Declares `present`, the subgroups there are. It bounds a loop with barriers, so all must be seen to agree on it.
    fn passes(&self) -> String {
        let (write, read) = match self.unit {
            1 => ("f32(subgroups)", ""),
            _ => ("vec4<f32>(f32(subgroups))", ".x"),
        };
        // In the memory of C: with a word of its own, AB^T of 128 x 128 would be over what two workgroups can share.
        format!(
            "if (lane == 0u) {{
            sh_c[0] = {write};
            }}
            // At least 1: a loop over passes that never ended would hang a device without a display for good.
            let present = max(u32(workgroupUniformLoad(&sh_c[0]){read}), 1u);"
        )
    }

    /// Declares `own`, the warp tile of this subgroup in this pass, and where it lies in the block.
    fn warp_tile(&self) -> String {
        let (side, [high, wide], [_, across]) = (self.side(), self.fragments, self.numbers.subgroups);
        format!(
            "let own = min(pass_first + subgroup, {}u);
            let sub_row = (own / {across}u) * {}u;
            let sub_column = (own % {across}u) * {}u;",
            self.numbers.warp_tiles() - 1,
            high * side,
            wide * side,
        )
    }

    fn side(&self) -> u32 {
        self.numbers.fragment.side
    }

    /// Row and column of each fragment of a warp tile.
    fn pairs(&self) -> impl Iterator<Item = (u32, u32)> {
        let [high, wide] = self.fragments;
        (0..high).flat_map(move |y| (0..wide).map(move |x| (y, x)))
    }

    /// All terms of a tile: every fragment of A with every fragment of B.
    fn multiply(&self, code: &mut Code, [a, b]: &[Source; 2]) {
        let Cooperative { fragment, depth, .. } = self.numbers;
        let (side, [high, wide]) = (fragment.side, self.fragments);
        for term in (0..depth).step_by(side as usize) {
            code.push("{");
            for x in 0..wide {
                code.push(format!("let b{x} = {};", b.load(fragment, x * side, term)));
            }
            for y in 0..high {
                code.push(format!("let a{y} = {};", a.load(fragment, y * side, term)));
                for x in 0..wide {
                    code.push(format!("acc{y}_{x} = coopMultiplyAdd(a{y}, b{x}, acc{y}_{x});"));
                }
            }
            code.push("}");
        }
    }

    /// The staged tiles.
    fn tile_sources(&self) -> [Source; 2] {
        let one = |role, array, output, pitch, outputs_down| Source {
            role,
            array,
            unit: self.unit,
            pitch: Pitch::Elements(pitch),
            base: "",
            output,
            term: "",
            outputs_down,
        };
        let Staging { a, b, .. } = self.staging;
        [
            one('A', "sh_a", "sub_row", a.pitch, self.layout != Layout::TN),
            one('B', "sh_b", "sub_column", b.pitch, self.layout == Layout::NT),
        ]
    }

    /// The operands themselves.
    fn storage_sources(&self) -> [Source; 2] {
        let [a, b] = self.tile_sources();
        let (a_pitch, b_pitch) = (Pitch::Stride("dims.a_stride"), Pitch::Stride("dims.b_stride"));
        [
            Source {
                array: "a",
                unit: 1,
                pitch: a_pitch,
                base: "a_base + ",
                output: "row0 + sub_row",
                term: "i0",
                ..a
            },
            Source {
                array: "b",
                unit: 1,
                pitch: b_pitch,
                base: "b_base + ",
                output: "column0 + sub_column",
                term: "i0",
                ..b
            },
        ]
    }
}

/// `expression + number`, shorter where one of them is nothing.
fn plus(expression: &str, number: u32) -> String {
    match (expression, number) {
        ("", _) => format!("{number}u"),
        (_, 0) => expression.to_owned(),
        _ => format!("{expression} + {number}u"),
    }
}
