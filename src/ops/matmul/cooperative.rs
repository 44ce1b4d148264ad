//! Products of f16 operands on matrix units, accumulated in f32: for GPUs that have them.
//!
//! A workgroup of several subgroups computes a block of C. Tiles of A and B are staged in workgroup memory as they
//! lie in storage, rows padded by eight elements against bank conflicts; each subgroup multiplies fragments out of
//! them into accumulators that never leave its registers until the sum is done. There is no access to single
//! elements of a fragment, so C goes through workgroup memory, where edges, types and accumulation are seen to.

use super::source::{Code, SUM_LOOP, Types, Vectors, begin_blocks, block_loop};
use crate::gpu::choices::Layout;

/// The numbers of [`crate::gpu::choices::Candidate::Cooperative`].
#[derive(Debug, Clone, Copy)]
pub struct Cooperative {
    pub fragment: u32,
    pub block: [u32; 2],
    pub depth: u32,
    pub subgroups: [u32; 2],
    pub subgroup_size: u32,
}

/// Elements that pad a row of a staged tile; `Candidate::workgroup_bytes` counts them.
const PAD: u32 = 8;

/// A tile as it lies in workgroup memory: `rows` of `columns` elements, as in storage.
struct Staged {
    name: char,
    rows: u32,
    columns: u32,
}

impl Staged {
    fn pitch(&self) -> u32 {
        self.columns + PAD
    }
}

impl Cooperative {
    fn invocations(&self) -> u32 {
        self.subgroups[0] * self.subgroups[1] * self.subgroup_size
    }

    /// The WGSL.
    pub fn generate(&self, name: &str, layout: Layout, types: Types) -> String {
        let Self { fragment, block: [rows, columns], depth, subgroups: [down, across], subgroup_size } = *self;
        let a = if layout == Layout::TN {
            Staged { name: 'a', rows: depth, columns: rows }
        } else {
            Staged { name: 'a', rows, columns: depth }
        };
        let b = if layout == Layout::NT {
            Staged { name: 'b', rows: columns, columns: depth }
        } else {
            Staged { name: 'b', rows: depth, columns }
        };
        // Fragments of one subgroup.
        let (high, wide) = (rows / down / fragment, columns / across / fragment);
        let mut code = begin_blocks(name, layout, types, Vectors::NONE, "enable wgpu_cooperative_matrix;");
        let place = format!(
            "let sub_row = (subgroup / {across}u) * {}u;\nlet sub_column = (subgroup % {across}u) * {}u;",
            high * fragment,
            wide * fragment,
        );
        code.push(format!(
            "var<workgroup> sh_a: array<f16, {}>;
            var<workgroup> sh_b: array<f16, {}>;
            var<workgroup> sh_c: array<f32, {}>; // one fragment a subgroup

            @compute @workgroup_size({})
            fn product(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            @builtin(subgroup_id) subgroup: u32,
            @builtin(subgroup_invocation_id) inner: u32,
            ) {{
            {}",
            a.rows * a.pitch(),
            b.rows * b.pitch(),
            down * across * fragment * fragment,
            self.invocations(),
            block_loop(self.block, &place),
        ));
        for (y, x) in pairs(high, wide) {
            code.push(format!("var acc{y}_{x} = coop_mat{fragment}x{fragment}<f32, C>();"));
        }
        code.push(SUM_LOOP);
        code.push(format!("for (var i0 = first; i0 < end; i0 += {depth}u) {{\nworkgroupBarrier();"));
        self.stage(&mut code, &a, layout == Layout::TN, "row0", "dims.m");
        self.stage(&mut code, &b, layout != Layout::NT, "column0", "dims.n");
        code.push("workgroupBarrier();");
        for i in (0..depth).step_by(fragment as usize) {
            self.multiply(&mut code, [&a, &b], layout, i, [high, wide]);
        }
        code.push("}\n}");
        for (y, x) in pairs(high, wide) {
            let size = fragment * fragment;
            code.push(format!(
                "{{
                let at = subgroup * {size}u;
                let stride = {fragment}u;
                workgroupBarrier();
                coopStoreT(acc{y}_{x}, &sh_c[at], stride);
                workgroupBarrier();
                for (var e = inner; e < {size}u; e += {subgroup_size}u) {{
                store(
                row0 + sub_row + {}u + e / {fragment}u,
                column0 + sub_column + {}u + e % {fragment}u,
                shift,
                sh_c[at + e],
                );
                }}
                }}",
                y * fragment,
                x * fragment,
            ));
        }
        code.push("}\n}");
        code.finish()
    }

    /// Copies a tile to workgroup memory, zeros outside of the operand. `k_down`: its rows are terms of the sum.
    fn stage(&self, code: &mut Code, tile: &Staged, k_down: bool, origin: &str, limit: &str) {
        let Staged { name, rows, columns } = *tile;
        let [row, column] = if k_down { ["i0", origin] } else { [origin, "i0"] };
        let [row_end, column_end] = if k_down { ["end", limit] } else { [limit, "end"] };
        let count = rows * columns;
        code.push(format!(
            "for (var e = lane; e < {count}u; e += {}u) {{
            let y = {row} + e / {columns}u;
            let x = {column} + e % {columns}u;
            let inside = y < {row_end} && x < {column_end};
            let value = {name}[{name}_base + select(0u, y * dims.{name}_stride + x, inside)];
            sh_{name}[(e / {columns}u) * {}u + e % {columns}u] = select(f16(0.0), value, inside);
            }}",
            self.invocations(),
            tile.pitch(),
        ));
    }

    /// One step of `fragment` terms: every fragment of A with every fragment of B.
    fn multiply(&self, code: &mut Code, [a, b]: [&Staged; 2], layout: Layout, i: u32, [high, wide]: [u32; 2]) {
        let size = self.fragment;
        code.push("{");
        for y in 0..high {
            let row = format!("sub_row + {}u", y * size);
            // `coopLoadT` reads row by row, `coopLoad` column by column.
            let (load, at) = if layout == Layout::TN {
                ("coopLoad", format!("{}u + {row}", i * a.pitch()))
            } else {
                ("coopLoadT", format!("({row}) * {}u + {i}u", a.pitch()))
            };
            code.push(format!("let a{y} = {load}<coop_mat{size}x{size}<f16, A>>(&sh_a[{at}], {}u);", a.pitch()));
        }
        for x in 0..wide {
            let column = format!("sub_column + {}u", x * size);
            let (load, at) = if layout == Layout::NT {
                ("coopLoad", format!("({column}) * {}u + {i}u", b.pitch()))
            } else {
                ("coopLoadT", format!("{}u + {column}", i * b.pitch()))
            };
            code.push(format!("let b{x} = {load}<coop_mat{size}x{size}<f16, B>>(&sh_b[{at}], {}u);", b.pitch()));
        }
        for (y, x) in pairs(high, wide) {
            code.push(format!("acc{y}_{x} = coopMultiplyAdd(a{y}, b{x}, acc{y}_{x});"));
        }
        code.push("}");
    }
}

fn pairs(high: u32, wide: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..high).flat_map(move |y| (0..wide).map(move |x| (y, x)))
}
