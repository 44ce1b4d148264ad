//! Products without workgroup memory, written out: one SIMD unit a workgroup, its lanes along n.
//!
//! For software drivers. llvmpipe keeps arrays that a loop indexes in memory and counts the iterations of loops,
//! so every accumulator is a variable of its own and the loop over k takes several terms a turn. A load whose
//! address differs by lane is a gather; with `broadcast` the rows of A cost one gather for all lanes.

use super::source::{BASES, ProductForm, Types, a_index, b_index, begin};
use crate::kernel::Layout;

/// Sums that are written one by one under a condition for all of them: of conditions in one sequence, each beyond some twenty
/// doubles the time of SwiftShader's compiler.
const GROUP: u32 = 16;

/// The numbers of [`crate::kernel::Candidate::Lanes`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    pub lanes: u32,
    pub rows: u32,
    pub columns: u32,
    pub unroll: u32,
    pub broadcast: bool,
    /// A is read four terms at a time: its rows start at multiples of four elements.
    pub a_vectors: bool,
}

impl Lanes {
    /// Loads of A a turn, for each lane: with `broadcast` lane l holds rows l, l + lanes, ...
    fn a_loads(&self) -> u32 {
        if self.broadcast { self.rows.div_ceil(self.lanes) } else { self.rows }
    }

    /// The WGSL.
    pub(super) fn generate(&self, name: &str, layout: Layout, types: Types, form: ProductForm) -> String {
        let Self { lanes, rows, columns, unroll, .. } = *self;
        let mut code = begin(name, layout, types, self.a_vectors, form);
        let width = lanes * columns;
        code.push(format!(
            "@compute @workgroup_size({lanes})
            fn product(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin({}) lane: u32,
            ) {{
            let column_tiles = (dims.n + {}u) / {width}u;
            let matrix_tiles = column_tiles * ((dims.m + {}u) / {rows}u);
            let tiles = matrix_tiles * dims.batch;
            {}
            for (var tile = group.x; tile < tiles; tile += groups.x) {{
            let z = tile / matrix_tiles;
            {BASES}
            let row = ((tile % matrix_tiles) / column_tiles) * {rows}u;
            let column = (tile % column_tiles) * {width}u + lane;",
            if self.broadcast { "subgroup_invocation_id" } else { "local_invocation_index" },
            width - 1,
            rows - 1,
            self.steps(layout),
        ));
        // Edges read a valid element again instead of branching; store drops what is outside.
        for r in 0..self.a_loads() {
            let row = if self.broadcast { format!("row + {}u + lane", r * lanes) } else { format!("row + {r}u") };
            code.push(format!("var a{r} = {};", a_index(layout, &format!("min({row}, dims.m - 1u)"), "0u")));
        }
        for j in 0..columns {
            let column = format!("min(column + {}u, dims.n - 1u)", j * lanes);
            code.push(format!("var b{j} = {};", b_index(layout, "0u", &column)));
        }
        for r in 0..rows {
            for j in 0..columns {
                code.push(format!("var s{r}_{j} = 0.0;"));
            }
        }
        code.push(format!(
            "let turns = dims.k / {unroll}u;
            for (var turn = 0u; turn < turns; turn++) {{
            {}}}
            for (var i = turns * {unroll}u; i < dims.k; i++) {{
            {}}}",
            self.terms(layout, unroll),
            self.terms(layout, 1),
        ));
        let group = (GROUP / columns).max(1);
        for r in 0..rows {
            if r.is_multiple_of(group) {
                code.push(format!("if (row + {r}u < dims.m) {{"));
            }
            for j in 0..columns {
                code.push(format!("store(row + {r}u, column + {}u, z * dims.c_batch, s{r}_{j});", j * lanes));
            }
            if (r + 1).is_multiple_of(group) || r + 1 == rows {
                code.push("}");
            }
        }
        code.push("}\n}");
        code.finish()
    }

    /// Multiples of the strides, ahead of all loops: old drivers do not take them out of a loop themselves.
    fn steps(&self, layout: Layout) -> String {
        let multiples = |name: char| -> String {
            (1..=self.unroll).map(|i| format!("let {name}_step{i} = {i}u * dims.{name}_stride;\n")).collect()
        };
        let a = if layout == Layout::TN { multiples('a') } else { String::new() };
        let b = if layout == Layout::NT { String::new() } else { multiples('b') };
        a + &b
    }

    /// `count` terms of every sum, and the operands moved on.
    fn terms(&self, layout: Layout, count: u32) -> String {
        let Self { lanes, rows, columns, .. } = *self;
        let mut text = String::new();
        let mut line = |line: String| text += &(line + "\n");
        let whole_vectors = self.a_vectors && count.is_multiple_of(4);
        for i in 0..count {
            for j in 0..columns {
                let at = if layout == Layout::NT { offset(i, "") } else { offset(i, "b_step") };
                line(format!("let b{i}_{j} = f32(b[b{j}{at}]);"));
            }
            for r in 0..self.a_loads() {
                let value = match (self.a_vectors, layout) {
                    (true, _) if whole_vectors => {
                        if i.is_multiple_of(4) {
                            line(format!("let v{i}_{r} = a[a{r} / 4u + {}u];", i / 4));
                        }
                        format!("v{}_{r}.{}", i - i % 4, ["x", "y", "z", "w"][(i % 4) as usize])
                    }
                    (true, _) => format!("a[a{r} / 4u][a{r} % 4u]"),
                    (false, Layout::TN) => format!("a[a{r}{}]", offset(i, "a_step")),
                    (false, _) => format!("a[a{r}{}]", offset(i, "")),
                };
                line(format!("let a{i}_{r} = f32({value});"));
            }
        }
        // All terms of a row at once: its sums stay in registers, and the row of B is what is loaded again. With terms outside,
        // all sums were spilled for each (68 in place of 74 GFLOP/s of 16 x 4, u8, Mesa 26.1.6); LLVM does not change the order.
        for r in 0..rows {
            for i in 0..count {
                line(if self.broadcast {
                    format!("let r{i}_{r} = subgroupBroadcast(a{i}_{}, {}u);", r / lanes, r % lanes)
                } else {
                    format!("let r{i}_{r} = a{i}_{r};")
                });
                for j in 0..columns {
                    line(format!("s{r}_{j} = fma(r{i}_{r}, b{i}_{j}, s{r}_{j});"));
                }
            }
        }
        for r in 0..self.a_loads() {
            let step = if layout == Layout::TN { format!("a_step{count}") } else { format!("{count}u") };
            line(format!("a{r} += {step};"));
        }
        for j in 0..columns {
            let step = if layout == Layout::NT { format!("{count}u") } else { format!("b_step{count}") };
            line(format!("b{j} += {step};"));
        }
        text
    }
}

/// What is added to an index to get `i` steps on; `step` is empty where terms are neighbours in memory.
fn offset(i: u32, step: &str) -> String {
    match (i, step) {
        (0, _) => String::new(),
        (_, "") => format!(" + {i}u"),
        _ => format!(" + {step}{i}"),
    }
}
