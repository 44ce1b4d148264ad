//! Products from tiles staged in workgroup memory: for GPUs.
//!
//! A workgroup computes a block of C. In each round its invocations put the next `depth` terms of A and B into workgroup
//! memory, and fetch the terms after those into registers while they multiply. Both tiles lie k-major there, in vectors of
//! four rows of A or four columns of B; a line of them is padded by one vector, so that neighbouring invocations meet
//! different banks. An operand that is stored with k as its fastest axis is transposed on the way, in squares of 4 x 4 in
//! registers: stores of single components of a vector would race on drivers that write the whole vector.
//!
//! Measured on an H200 at 4096 cubed: reading storage in vectors took such a kernel from 31 to 34 TFLOP/s, writing out the
//! turns of the inner loop to 41, 8 x 16 outputs an invocation to 43 (A B) and 45 (A^T B). Two buffers were slower (37).

use super::source::{Code, ProductForm, Types, Vectors, begin_blocks, block_loop, quad_loads, sum_loop};
use crate::kernel::Layout;

const PARTS: [&str; 4] = ["x", "y", "z", "w"];

/// The numbers of [`crate::kernel::Candidate::Tiles`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    pub block: [u32; 2],
    pub depth: u32,
    pub thread: [u32; 2],
}

/// One operand of a block, as it is staged by `invocations`.
struct Staged {
    /// `a` or `b`.
    name: char,
    /// Type as stored.
    stored: &'static str,
    /// Vectors of four rows (or columns).
    quads: u32,
    depth: u32,
    /// Whether k is the fastest axis in memory.
    k_fastest: bool,
    invocations: u32,
    /// Whether it comes from one of two tensors.
    pair: bool,
}

impl Tiles {
    fn invocations(&self) -> u32 {
        (self.block[0] / self.thread[0]) * (self.block[1] / self.thread[1])
    }

    /// The WGSL.
    pub(super) fn generate(&self, name: &str, layout: Layout, types: Types, vectors: Vectors, form: ProductForm) -> String {
        let pair = form == ProductForm::Pair;
        let Self { block: [rows, columns], depth, thread: [thread_rows, thread_columns] } = *self;
        let invocations = self.invocations();
        let staged = |name, stored, side: u32, k_fastest| Staged {
            name,
            stored,
            quads: side / 4,
            depth,
            k_fastest,
            invocations,
            pair: pair && name == 'b',
        };
        let operands = [
            staged('a', types.a.name(), rows, layout != Layout::TN),
            staged('b', types.b.name(), columns, layout == Layout::NT),
        ];
        let mut code = begin_blocks(name, layout, types, vectors, "", form);
        code.push(quad_loads(layout, types, vectors, pair));
        for operand in &operands {
            code.push(format!("var<workgroup> sh_{}: array<vec4<f32>, {}>;", operand.name, depth * operand.pitch()));
        }
        let across = columns / thread_columns;
        code.push(format!(
            "
            @compute @workgroup_size({invocations})
            fn product(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            ) {{
            {}",
            block_loop(self.block, &format!("let tx = lane % {across}u;\nlet ty = lane / {across}u;"), pair),
        ));
        for (r, q) in outputs(thread_rows, thread_columns) {
            code.push(format!("var s{r}_{q} = vec4<f32>();"));
        }
        for operand in &operands {
            operand.declare(&mut code);
        }
        code.push(sum_loop(pair));
        operands.iter().for_each(|operand| operand.fetch(&mut code, "first"));
        code.push(format!("for (var i0 = first; i0 < end; i0 += {depth}u) {{\nworkgroupBarrier();"));
        operands.iter().for_each(|operand| operand.put(&mut code));
        code.push("workgroupBarrier();");
        // Past the last term this loads nothing.
        operands.iter().for_each(|operand| operand.fetch(&mut code, &format!("i0 + {depth}u")));
        // Written out: as a loop it did 34 TFLOP/s in place of 41 on an H200 (4096 cubed).
        for i in 0..depth {
            self.multiply(&mut code, &operands, i);
        }
        code.push("}\n}");
        let down = rows / thread_rows;
        for (r, q) in outputs(thread_rows, thread_columns) {
            let row = format!("row0 + ty * 4u + {}u", (r / 4) * down * 4 + r % 4);
            code.push(format!("store_quad({row}, column0 + tx * 4u + {}u, shift, s{r}_{q});", q * across * 4));
        }
        code.push("}\n}");
        code.finish()
    }

    /// Adds term `i` of the tiles to every output of the invocation.
    fn multiply(&self, code: &mut Code, [a, b]: &[Staged; 2], i: u32) {
        let [rows, columns] = self.thread;
        code.push("{");
        for q in 0..rows / 4 {
            code.push(format!("let a{q} = sh_a[ty + {}u];", i * a.pitch() + q * self.block[0] / rows));
        }
        for q in 0..columns / 4 {
            code.push(format!("let b{q} = sh_b[tx + {}u];", i * b.pitch() + q * self.block[1] / columns));
        }
        for (r, q) in outputs(rows, columns) {
            let from_a = format!("a{}.{}", r / 4, PARTS[(r % 4) as usize]);
            code.push(format!("s{r}_{q} = fma(vec4<f32>({from_a}), b{q}, s{r}_{q});"));
        }
        code.push("}");
    }
}

/// Rows of outputs and the vectors in them.
fn outputs(rows: u32, columns: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..rows).flat_map(move |r| (0..columns / 4).map(move |q| (r, q)))
}

impl Staged {
    /// Vectors from term to term in workgroup memory.
    fn pitch(&self) -> u32 {
        self.quads + 1
    }

    /// What one invocation stages at a time: a vector in memory, or a square of four where it is transposed.
    fn pieces(&self) -> u32 {
        self.quads * if self.k_fastest { self.depth / 4 } else { self.depth }
    }

    /// Vectors of one piece.
    fn height(&self) -> u32 {
        if self.k_fastest { 4 } else { 1 }
    }

    /// Number, as WGSL, of each piece of an invocation.
    fn numbers(&self) -> impl Iterator<Item = (u32, String)> {
        let (name, invocations) = (self.name, self.invocations);
        // Where both operands are transposed and either has pieces for half of the invocations, the other half has B's.
        let first = if self.name == 'b' && self.k_fastest && self.pieces() < invocations {
            format!("(lane + {}u) % {invocations}u", self.pieces())
        } else {
            "lane".to_owned()
        };
        (0..self.pieces().div_ceil(invocations)).map(move |e| {
            let number = if e == 0 { first.clone() } else { format!("{name}_piece0 + {}u", e * invocations) };
            (e, number)
        })
    }

    /// Declares the registers of every piece, and where it lies: its vector of rows (or columns) and its first term.
    fn declare(&self, code: &mut Code) {
        let Self { name, stored, .. } = self;
        for (e, number) in self.numbers() {
            code.push(format!("let {name}_piece{e} = {number};"));
            let (quad, term) = if self.k_fastest {
                let steps = self.depth / 4;
                (format!("{name}_piece{e} / {steps}u"), format!("({name}_piece{e} % {steps}u) * 4u"))
            } else {
                (format!("{name}_piece{e} % {}u", self.quads), format!("{name}_piece{e} / {}u", self.quads))
            };
            code.push(format!("let {name}_quad{e} = {quad};\nlet {name}_term{e} = {term};"));
            for x in 0..self.height() {
                code.push(format!("var next_{name}{e}_{x} = vec4<{stored}>();"));
            }
        }
    }

    /// Loads this invocation's pieces of the tile that starts at term `i0` into registers. Of a pair, one branch leads to
    /// all loads, so that they are under way together.
    fn fetch(&self, code: &mut Code, i0: &str) {
        if self.pair {
            code.push("if (second) {");
            self.fetch_by("b2_quad", code, i0);
            code.push("} else {");
            self.fetch_by("b_quad", code, i0);
            code.push("}");
        } else {
            self.fetch_by(if self.name == 'a' { "a_quad" } else { "b_quad" }, code, i0);
        }
    }

    fn fetch_by(&self, load: &str, code: &mut Code, i0: &str) {
        let name = self.name;
        for (e, _) in self.numbers() {
            self.begin(code, e);
            for x in 0..self.height() {
                let term = format!("{i0} + {name}_term{e}");
                let quad = if name == 'a' {
                    format!("{load}(a_base, row0 + a_quad{e} * 4u + {x}u, {term}, end)")
                } else {
                    format!("{load}(b_base, {term}, column0 + b_quad{e} * 4u + {x}u, end)")
                };
                code.push(format!("next_{name}{e}_{x} = {quad};"));
            }
            self.end(code, e);
        }
    }

    /// Stores the registers of [`Staged::fetch`] into workgroup memory.
    fn put(&self, code: &mut Code) {
        let Self { name, stored, .. } = self;
        for (e, _) in self.numbers() {
            self.begin(code, e);
            let at = format!("sh_{name}[{name}_term{e} * {}u + {name}_quad{e}", self.pitch());
            if self.k_fastest {
                for (x, part) in (0..).zip(PARTS) {
                    let line = [0, 1, 2, 3].map(|y| format!("next_{name}{e}_{y}.{part}")).join(", ");
                    code.push(format!("{at} + {}u] = vec4<f32>(vec4<{stored}>({line}));", x * self.pitch()));
                }
            } else {
                code.push(format!("{at}] = vec4<f32>(next_{name}{e}_0);"));
            }
            self.end(code, e);
        }
    }

    /// A tile with fewer pieces than the workgroup has invocations: the others have nothing to do.
    fn begin(&self, code: &mut Code, e: u32) {
        if self.is_partial(e) {
            code.push(format!("if ({}_piece{e} < {}u) {{", self.name, self.pieces()));
        }
    }

    fn end(&self, code: &mut Code, e: u32) {
        if self.is_partial(e) {
            code.push("}");
        }
    }

    fn is_partial(&self, e: u32) -> bool {
        (e + 1) * self.invocations > self.pieces()
    }
}
