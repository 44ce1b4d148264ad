//! What the generated kernels share: the uniform block, the bindings, and how C is written.

use crate::kernel::{Dtype, Layout, Parameters, declare, parameter_block};
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

/// Where the operands of matrix `z` of a batch start: for kernels that cannot add up several products.
pub(crate) const BASES: &str = "let a_base = dims.a_offset + z * dims.a_batch;
    let b_base = dims.b_offset + z * dims.b_batch;";

/// Offset of element (row, i) of op(A): A is (m, k), or (k, m) where transposed.
pub(crate) fn a_index(layout: Layout, row: &str, i: &str) -> String {
    match layout {
        Layout::TN => format!("a_base + ({i}) * dims.a_stride + {row}"),
        Layout::NN | Layout::NT => format!("a_base + ({row}) * dims.a_stride + {i}"),
    }
}

/// Offset of element (i, column) of op(B): B is (k, n), or (n, k) where transposed.
pub(crate) fn b_index(layout: Layout, i: &str, column: &str) -> String {
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
    pub(crate) fn any_half(self) -> bool {
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

/// Which operands may be read, or written, four neighbours in memory at a time: everything that leads to them, and how
/// far their fastest axis goes, is a multiple of four elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vectors {
    /// A.
    pub a: bool,
    /// B.
    pub b: bool,
    /// C.
    pub c: bool,
}

impl Vectors {
    /// Element by element.
    pub const NONE: Self = Self { a: false, b: false, c: false };
    /// All in vectors.
    pub const ALL: Self = Self { a: true, b: true, c: true };

    /// Every combination.
    pub fn every() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self { a: bits & 1 > 0, b: bits & 2 > 0, c: bits & 4 > 0 })
    }

    /// Of the offset, the strides and the length of the fastest axis of A, B and C.
    pub fn of<const N: usize>(numbers: [[usize; N]; 3]) -> Self {
        let [a, b, c] = numbers.map(|of_one| of_one.iter().all(|n| n.is_multiple_of(4)));
        Self { a, b, c }
    }

    /// For the names of kernels: nothing, or the operands that are vectors, as in `-vac`.
    pub fn suffix(self) -> String {
        let Self { a, b, c } = self;
        let letters: String = [(a, 'a'), (b, 'b'), (c, 'c')].iter().filter(|of| of.0).map(|of| of.1).collect();
        if letters.is_empty() { letters } else { format!("-v{letters}") }
    }
}

/// The loop over the blocks of `rows` x `columns` of C, once for each matrix of the batch and part of the sum: row0,
/// column0, the terms from `first` to `end`, and `shift`, where this C starts. `declare` comes before the loop; the caller
/// closes it, and puts [`sum_loop`] around the loop over the terms.
///
/// `pair`: also `second`, whether this is of the second half of the batch, whose B is `b2`, and `in_half`, the number in its half.
pub(crate) fn block_loop([rows, columns]: [u32; 2], declare: &str, pair: bool) -> String {
    let (halves, c) = if pair {
        (
            "let second = z >= dims.batch / 2u;
            let in_half = select(z, z - dims.batch / 2u, second);
            ",
            "select(0u, dims.c_second, second) + in_half * dims.c_batch",
        )
    } else {
        ("", "z * dims.c_batch")
    };
    format!(
        "let column_tiles = (dims.n + {}u) / {columns}u;
        let part_tiles = column_tiles * ((dims.m + {}u) / {rows}u);
        let parts = (dims.k + dims.part - 1u) / dims.part;
        let tiles = part_tiles * parts * dims.batch;
        {declare}
        for (var tile = group.x; tile < tiles; tile += groups.x) {{
        let z = tile / (part_tiles * parts);
        let part = (tile / part_tiles) % parts;
        {halves}let shift = {c} + part * dims.m * dims.n;
        let row0 = ((tile % part_tiles) / column_tiles) * {rows}u;
        let column0 = (tile % column_tiles) * {columns}u;
        let first = part * dims.part;
        let end = min(first + dims.part, dims.k);",
        columns - 1,
        rows - 1,
    )
}

/// Opens the loop over the products that are added up; a pair of batches adds nothing up and has a block in its place.
pub(crate) fn sum_loop(pair: bool) -> &'static str {
    if pair { PAIR } else { SUM_LOOP }
}

const PAIR: &str = "{
    let a_base = select(dims.a_offset, dims.a_second, second) + in_half * dims.a_batch;
    let b_base = select(dims.b_offset, dims.b_second, second) + in_half * select(dims.b_batch, dims.b2_batch, second);";

/// The loop over the products that are added up in one C; the accumulators are declared before it and live on through it.
/// Either `dims.batch` or `dims.sum` is 1.
const SUM_LOOP: &str = "for (var y = z; y < z + dims.sum; y++) {
    let a_base = dims.a_offset + y * dims.a_batch;
    let b_base = dims.b_offset + y * dims.b_batch;";

/// `a_quad(a_base, row, i, end)` and `b_quad(b_base, i, column, end)`: four neighbours in memory from an element of op(A)
/// or op(B) on, along k where k is the fastest axis, as vectors of the stored type; zeros outside of the matrix and from term
/// `end` on. Of an operand in vectors, the coordinate along its fastest axis must be a multiple of four. `pair`: also
/// `b2_quad`, which takes what `b_quad` does.
pub(crate) fn quad_loads(layout: Layout, types: Types, vectors: Vectors, pair: bool) -> String {
    let load = |name: &str, dtype: Dtype, vectors: bool, arguments: &str, slow: [&str; 2], fast: [&str; 2]| {
        let ([slow, slow_end], [fast, fast_end], dtype) = (slow, fast, dtype.name());
        let operand = &name[..1];
        let at = format!("{operand}_base + {slow} * dims.{operand}_stride + {fast}");
        let body = if vectors {
            format!("if (({slow} < {slow_end}) & ({fast} < {fast_end})) {{\nquad = {name}[({at}) / 4u];\n}}")
        } else {
            let element = |x: usize| {
                let part = ["x", "y", "z", "w"][x];
                format!("if ({fast} + {x}u < {fast_end}) {{\nquad.{part} = {name}[at + {x}u];\n}}\n")
            };
            let elements: String = (0..4).map(element).collect();
            format!("if ({slow} < {slow_end}) {{\nlet at = {at};\n{elements}}}")
        };
        format!(
            "fn {name}_quad({operand}_base: u32, {arguments}, end: u32) -> vec4<{dtype}> {{
            var quad = vec4<{dtype}>();
            {body}
            return quad;
            }}

            "
        )
    };
    let (row, column, term) = (["row", "dims.m"], ["column", "dims.n"], ["i", "end"]);
    let (a_slow, a_fast) = if layout == Layout::TN { (term, row) } else { (row, term) };
    let (b_slow, b_fast) = if layout == Layout::NT { (column, term) } else { (term, column) };
    let of_b = |name| load(name, types.b, vectors.b, "i: u32, column: u32", b_slow, b_fast);
    let second = if pair { of_b("b2") } else { String::new() };
    load("a", types.a, vectors.a, "row: u32, i: u32", a_slow, a_fast) + &of_b("b") + &second
}

/// For kernels on [`block_loop`] and [`sum_loop`]: header, uniform block, bindings and `store_quad(row, column, shift,
/// value)`, which writes four columns, `column` a multiple of four. Where C is written by elements, also `store`, which
/// writes one. C is read only where it is added to.
pub(crate) fn begin_blocks(title: &str, layout: Layout, types: Types, vectors: Vectors, directives: &str, form: ProductForm) -> Code {
    let mut code = header(title, layout, types, vectors, directives, form, false);
    let (c, c_stride) = (types.c.name(), form.c_stride());
    code.push(if vectors.c {
        format!(
            "fn store_quad(row: u32, column: u32, shift: u32, value: vec4<f32>) {{
            if ((row < dims.m) & (column < dims.n)) {{
            let at = (dims.c_offset + shift + row * {c_stride} + column) / 4u;
            if (dims.accumulate == 1u) {{
            c[at] = vec4<{c}>(value + vec4<f32>(c[at]));
            }} else {{
            c[at] = vec4<{c}>(value);
            }}
            }}
            }}
            "
        )
    } else {
        format!(
            "fn store(row: u32, column: u32, shift: u32, value: f32) {{
            if ((row < dims.m) & (column < dims.n)) {{
            let at = dims.c_offset + shift + row * {c_stride} + column;
            if (dims.accumulate == 1u) {{
            c[at] = {c}(value + f32(c[at]));
            }} else {{
            c[at] = {c}(value);
            }}
            }}
            }}

            fn store_quad(row: u32, column: u32, shift: u32, value: vec4<f32>) {{
            store(row, column, shift, value.x);
            store(row, column + 1u, shift, value.y);
            store(row, column + 2u, shift, value.z);
            store(row, column + 3u, shift, value.w);
            }}
            "
        )
    });
    code
}

/// For kernels that add up no products of a batch: header, uniform block, bindings and `store`. `a_vectors` binds A as
/// `vec4`.
pub fn begin(title: &str, layout: Layout, types: Types, a_vectors: bool, form: ProductForm) -> Code {
    let vectors = Vectors { a: a_vectors, ..Vectors::NONE };
    let mut code = header(title, layout, types, vectors, "", form, true);
    let c_stride = form.c_stride();
    code.push(format!(
        "fn store(row: u32, column: u32, shift: u32, value: f32) {{
        if ((row < dims.m) & (column < dims.n)) {{
        let at = dims.c_offset + shift + row * {c_stride} + column;
        c[at] = {}(value + select(0.0, f32(c[at]), dims.accumulate == 1u));
        }}
        }}
        ",
        types.c.name()
    ));
    code
}

parameter_block! {
    /// The parameter block of the generated products. A kernel declares the first fields, as many as [`Sums::fields`] says.
    pub(crate) struct Dims {
        m: u32,
        n: u32,
        k: u32,
        a_offset: u32,
        b_offset: u32,
        c_offset: u32,
        /// from row to row of A as stored
        a_stride: u32,
        /// from row to row of B as stored
        b_stride: u32,
        accumulate: u32,
        /// terms of one part of the sum; part p of C lies p m n further on
        part: u32,
        /// products of one shape
        batch: u32,
        /// from matrix to matrix of the batch
        a_batch: u32,
        b_batch: u32,
        c_batch: u32,
        /// products of the batch that are added up in one C
        sum: u32,
        /// the first element of A of the second half of the batch
        a_second: u32,
        /// of B, in b2
        b_second: u32,
        /// from the C of the first half to that of the second
        c_second: u32,
        b2_batch: u32,
        /// from row to row of C, where it is columns of a wider matrix
        c_stride: u32,
    }
}

/// Where a kernel has its operands. Each form needs the parameters of the one before, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductForm {
    /// A, B and C.
    Whole,
    /// The second half of the batch has an operand B of its own.
    Pair,
    /// C is columns of a wider matrix.
    Columns,
}

impl ProductForm {
    /// How many fields of [`Dims`] there are; a `single` kernel adds up no products of a batch.
    pub(crate) fn fields(self, single: bool) -> usize {
        let before = |name: &str| Dims::FIELDS.iter().take_while(|field| field.name != name).count();
        match self {
            Self::Whole if single => before("sum"),
            Self::Whole => before("a_second"),
            Self::Pair => before("c_stride"),
            Self::Columns => Dims::FIELDS.len(),
        }
    }

    /// Ends the names of its kernels.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Pair => PAIRED,
            Self::Columns => "-columns",
        }
    }

    /// From row to row of C, in WGSL.
    pub(crate) fn c_stride(self) -> &'static str {
        match self {
            Self::Whole | Self::Pair => "dims.n",
            Self::Columns => "dims.c_stride",
        }
    }
}

/// End of the names of kernels with two operands B, of which a half of a batch takes each.
pub const PAIRED: &str = "-pair";

/// Header, uniform block and bindings; `directives` come first. `single` is as for [`ProductForm::fields`].
fn header(
    title: &str,
    layout: Layout,
    types: Types,
    vectors: Vectors,
    directives: &str,
    form: ProductForm,
    single: bool,
) -> Code {
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
    let stored =
        |dtype: Dtype, vectors: bool| if vectors { format!("vec4<{}>", dtype.name()) } else { dtype.name().to_owned() };
    let [a, b, c] = [stored(types.a, vectors.a), stored(types.b, vectors.b), stored(types.c, vectors.c)];
    let fields = declare(&Dims::FIELDS[..form.fields(single)]);
    let b2 = match form {
        ProductForm::Whole | ProductForm::Columns => String::new(),
        ProductForm::Pair => {
            format!("\n@group(0) @binding(4) var<storage, read> b2: array<{b}>; // {b_shape} of the second half")
        }
    };
    code.push(format!(
        "// Generated: {title}. C = op(A) op(B), {layout:?}.
        // Order of summation: k ascending into one accumulator an output, so zeros appended along k change no bit.
        // Writes: overwrites C, or adds to it when dims.accumulate is 1.
        struct Dims {{
        {fields}
        }}

        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read> a: array<{a}>; // {a_shape}
        @group(0) @binding(2) var<storage, read> b: array<{b}>; // {b_shape}
        @group(0) @binding(3) var<storage, read_write> c: array<{c}>; // (m, n){b2}
        "
    ));
    code
}
