//! What the generated kernels share: the uniform block, the bindings, and how C is written.

use crate::gpu::choices::Layout;
use crate::gpu::kernel::Dtype;
use std::fmt::Write;

/// WGSL in the making: lines, indented by their braces.
#[derive(Default)]
pub struct Code {
    text: String,
    depth: usize,
}

impl Code {
    /// Appends lines, indenting by the braces in them.
    pub fn push(&mut self, lines: impl AsRef<str>) {
        for line in lines.as_ref().lines().map(str::trim) {
            let closes = line.starts_with('}');
            self.depth = self.depth.saturating_sub(usize::from(closes));
            // Writing to a string does not fail.
            let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 4);
            self.depth += usize::from(line.ends_with('{'));
        }
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Where the operands of matrix `z` of a batch start.
pub const BASES: &str = "let a_base = dims.a_offset + z * dims.a_batch;
    let b_base = dims.b_offset + z * dims.b_batch;";

/// Offset of element (row, i) of op(A): A is (m, k), or (k, m) where transposed.
pub fn a_index(layout: Layout, row: &str, i: &str) -> String {
    match layout {
        Layout::TN => format!("a_base + ({i}) * dims.a_stride + {row}"),
        Layout::NN | Layout::NT => format!("a_base + ({row}) * dims.a_stride + {i}"),
    }
}

/// Offset of element (i, column) of op(B): B is (k, n), or (n, k) where transposed.
pub fn b_index(layout: Layout, i: &str, column: &str) -> String {
    match layout {
        Layout::NT => format!("b_base + ({column}) * dims.b_stride + {i}"),
        Layout::NN | Layout::TN => format!("b_base + ({i}) * dims.b_stride + {column}"),
    }
}

/// Element types of A, B and C as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// Of A.
    pub a: Dtype,
    /// Of B.
    pub b: Dtype,
    /// Of C.
    pub c: Dtype,
}

impl Types {
    /// Of A, B and C.
    pub fn of([a, b, c]: [Dtype; 3]) -> Self {
        Self { a, b, c }
    }

    /// Whether anything is f16.
    pub fn any_half(self) -> bool {
        [self.a, self.b, self.c].contains(&Dtype::F16)
    }

    /// Nothing where all are f32, or a letter for each: h for f16, s for f32.
    pub fn suffix(self) -> String {
        let letter = |dtype| if dtype == Dtype::F16 { 'h' } else { 's' };
        if self.any_half() {
            format!("-{}", [self.a, self.b, self.c].map(letter).iter().collect::<String>())
        } else {
            String::new()
        }
    }
}

/// The loop over the blocks of `rows` x `columns` of C, once for each matrix of the batch and part of the sum: row0,
/// column0, the terms from `first` to `end`, and `shift`, where this C starts. `declare` comes before the loop; the caller
/// closes it.
pub fn block_loop([rows, columns]: [u32; 2], declare: &str) -> String {
    format!(
        "let column_tiles = (dims.n + {}u) / {columns}u;
        let part_tiles = column_tiles * ((dims.m + {}u) / {rows}u);
        let parts = (dims.k + dims.part - 1u) / dims.part;
        let tiles = part_tiles * parts * dims.batch;
        {declare}
        for (var tile = group.x; tile < tiles; tile += groups.x) {{
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        {BASES}
        let shift = z * dims.c_batch + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * {rows}u;
        let column0 = (tile % column_tiles) * {columns}u;
        let first = part * dims.part;
        let end = min(first + dims.part, dims.k);",
        columns - 1,
        rows - 1,
    )
}

/// Header, uniform block, bindings and `store`. `a_vectors` binds A as `vec4`; `directives` come first.
pub fn begin(title: &str, layout: Layout, types: Types, a_vectors: bool, directives: &str) -> Code {
    let mut code = Code::default();
    if types.any_half() {
        code.push("enable f16;");
    }
    code.push(directives);
    let (a_shape, b_shape) = match layout {
        Layout::NN => ("(m, k)", "(k, n)"),
        Layout::NT => ("(m, k)", "(n, k)"),
        Layout::TN => ("(k, m)", "(k, n)"),
    };
    let [a, b, c] = [types.a, types.b, types.c].map(Dtype::name);
    let a_type = if a_vectors { format!("vec4<{a}>") } else { a.to_owned() };
    code.push(format!(
        "// Generated: {title}. C = op(A) op(B), {layout:?}.
        // Order of summation: k ascending into one accumulator an output, so zeros appended along k change no bit.
        // Writes: overwrites C, or adds to it when dims.accumulate is 1.
        struct Dims {{
        m: u32,
        n: u32,
        k: u32,
        a_offset: u32,
        b_offset: u32,
        c_offset: u32,
        a_stride: u32, // from row to row of A as stored
        b_stride: u32, // from row to row of B as stored
        accumulate: u32,
        part: u32, // terms of one part of the sum; part p of C lies p m n further on
        batch: u32, // products of one shape
        a_batch: u32, // from matrix to matrix of the batch
        b_batch: u32,
        c_batch: u32,
        }}

        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read> a: array<{a_type}>; // {a_shape}
        @group(0) @binding(2) var<storage, read> b: array<{b}>; // {b_shape}
        @group(0) @binding(3) var<storage, read_write> c: array<{c}>; // (m, n)

        fn store(row: u32, column: u32, shift: u32, value: f32) {{
        if (row < dims.m && column < dims.n) {{
        let at = dims.c_offset + shift + row * dims.n + column;
        c[at] = {c}(value + select(0.0, f32(c[at]), dims.accumulate == 1u));
        }}
        }}
        "
    ));
    code
}
