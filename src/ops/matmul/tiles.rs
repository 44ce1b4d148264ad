//! Products from tiles staged in workgroup memory: for GPUs.
//!
//! A workgroup computes a block of C. In each round its invocations load the next `depth` terms of A and B into
//! registers while they multiply the present ones out of workgroup memory. Both tiles lie k-major there in
//! vectors of four rows (or columns), a row padded by one vector, so that neighbouring invocations read
//! different banks; each invocation holds rows ty + 16 q (in vectors) and the like of C in registers.

use super::source::{SUM_LOOP, Types, Vectors, a_index, b_index, begin_blocks, block_loop};
use crate::gpu::choices::Layout;

/// The numbers of [`crate::gpu::choices::Candidate::Tiles`].
#[derive(Debug, Clone, Copy)]
pub struct Tiles {
    pub block: [u32; 2],
    pub depth: u32,
    pub thread: [u32; 2],
}

/// One operand of a block, as it is staged.
struct Staged {
    /// `a` or `b`.
    name: char,
    /// Vectors of four rows (or columns).
    quads: u32,
    /// Whether k is the fastest axis in memory.
    k_fastest: bool,
}

impl Tiles {
    fn invocations(&self) -> u32 {
        (self.block[0] / self.thread[0]) * (self.block[1] / self.thread[1])
    }

    /// The WGSL.
    pub fn generate(&self, name: &str, layout: Layout, types: Types) -> String {
        let Self { block: [rows, columns], depth, thread: [thread_rows, thread_columns] } = *self;
        let a = Staged { name: 'a', quads: rows / 4, k_fastest: layout != Layout::TN };
        let b = Staged { name: 'b', quads: columns / 4, k_fastest: layout == Layout::NT };
        let mut code = begin_blocks(name, layout, types, Vectors::NONE, "");
        code.push(format!(
            "fn load_a(a_base: u32, row: u32, i: u32, end: u32) -> f32 {{
            let value = f32(a[{}]);
            return select(0.0, value, row < dims.m && i < end);
            }}

            fn load_b(b_base: u32, i: u32, column: u32, end: u32) -> f32 {{
            let value = f32(b[{}]);
            return select(0.0, value, column < dims.n && i < end);
            }}

            var<workgroup> sh_a: array<vec4<f32>, {}>;
            var<workgroup> sh_b: array<vec4<f32>, {}>;
            ",
            a_index(layout, "min(row, dims.m - 1u)", "min(i, dims.k - 1u)"),
            b_index(layout, "min(i, dims.k - 1u)", "min(column, dims.n - 1u)"),
            depth * a.pitch(),
            depth * b.pitch(),
        ));
        let across = columns / thread_columns;
        code.push(format!(
            "@compute @workgroup_size({})
            fn product(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            ) {{
            {}",
            self.invocations(),
            block_loop(self.block, &format!("let tx = lane % {across}u;\nlet ty = lane / {across}u;")),
        ));
        for r in 0..thread_rows {
            for q in 0..thread_columns / 4 {
                code.push(format!("var s{r}_{q} = vec4<f32>();"));
            }
        }
        code.push(SUM_LOOP);
        code.push(self.fetch(&a, "first", "var "));
        code.push(self.fetch(&b, "first", "var "));
        code.push(format!("for (var i0 = first; i0 < end; i0 += {depth}u) {{\nworkgroupBarrier();"));
        code.push(self.put(&a));
        code.push(self.put(&b));
        code.push("workgroupBarrier();");
        // Past the last term this loads zeros that nobody uses.
        code.push(self.fetch(&a, &format!("i0 + {depth}u"), ""));
        code.push(self.fetch(&b, &format!("i0 + {depth}u"), ""));
        code.push(format!("for (var i = 0u; i < {depth}u; i++) {{"));
        let down = rows / thread_rows;
        for q in 0..thread_rows / 4 {
            code.push(format!("let a{q} = sh_a[i * {}u + ty + {}u];", a.pitch(), q * down));
        }
        for q in 0..thread_columns / 4 {
            code.push(format!("let b{q} = sh_b[i * {}u + tx + {}u];", b.pitch(), q * across));
        }
        for r in 0..thread_rows {
            let from_a = format!("a{}.{}", r / 4, ["x", "y", "z", "w"][(r % 4) as usize]);
            for q in 0..thread_columns / 4 {
                code.push(format!("s{r}_{q} = fma(vec4<f32>({from_a}), b{q}, s{r}_{q});"));
            }
        }
        code.push("}\n}\n}");
        for r in 0..thread_rows {
            let row = format!("row0 + ty * 4u + {}u", (r / 4) * down * 4 + r % 4);
            for q in 0..thread_columns / 4 {
                for (x, part) in ["x", "y", "z", "w"].iter().enumerate() {
                    let column = format!("column0 + tx * 4u + {}u", q * across * 4 + x as u32);
                    code.push(format!("store({row}, {column}, shift, s{r}_{q}.{part});"));
                }
            }
        }
        code.push("}\n}");
        code.finish()
    }

    /// Loads this invocation's vectors of the tile that starts at term `i0` into registers.
    fn fetch(&self, operand: &Staged, i0: &str, declare: &str) -> String {
        let mut text = String::new();
        let Staged { name, quads, .. } = *operand;
        for (e, quad, i) in self.vectors(operand) {
            let load = |x: u32| match name {
                'a' => format!("load_a(a_base, row0 + ({quad}) * 4u + {x}u, {i0} + {i}, end)"),
                _ => format!("load_b(b_base, {i0} + {i}, column0 + ({quad}) * 4u + {x}u, end)"),
            };
            let value = format!("vec4<f32>({}, {}, {}, {})", load(0), load(1), load(2), load(3));
            // A tile smaller than the workgroup: the others have nothing to load.
            let value = if self.partial(operand, e) {
                format!("select(vec4<f32>(), {value}, lane + {}u < {}u)", e * self.invocations(), quads * self.depth)
            } else {
                value
            };
            text += &format!("{declare}next_{name}{e} = {value};\n");
        }
        text
    }

    /// Stores the registers of [`Tiles::fetch`] into workgroup memory.
    fn put(&self, operand: &Staged) -> String {
        let mut text = String::new();
        let Staged { name, quads, .. } = *operand;
        for (e, quad, i) in self.vectors(operand) {
            let store = format!("sh_{name}[({i}) * {}u + {quad}] = next_{name}{e};\n", operand.pitch());
            if self.partial(operand, e) {
                text += &format!("if (lane + {}u < {}u) {{\n{store}}}\n", e * self.invocations(), quads * self.depth);
            } else {
                text += &store;
            }
        }
        text
    }

    /// The vectors one invocation stages: number, quad and term as WGSL.
    fn vectors(&self, operand: &Staged) -> Vec<(u32, String, String)> {
        let count = (operand.quads * self.depth).div_ceil(self.invocations());
        let one = |e: u32| {
            let at = format!("(lane + {}u)", e * self.invocations());
            if operand.k_fastest {
                (e, format!("{at} / {}u", self.depth), format!("{at} % {}u", self.depth))
            } else {
                (e, format!("{at} % {}u", operand.quads), format!("{at} / {}u", operand.quads))
            }
        };
        (0..count).map(one).collect()
    }

    fn partial(&self, operand: &Staged, e: u32) -> bool {
        (e + 1) * self.invocations() > operand.quads * self.depth
    }
}

impl Staged {
    /// Vectors from term to term in workgroup memory.
    fn pitch(&self) -> u32 {
        self.quads + 1
    }
}
