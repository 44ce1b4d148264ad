//! Attention in f16 on cooperative matrices, accumulated in f32.
//!
//! A workgroup owns 4 strips of as many rows as a fragment is wide (queries; keys for dk and dv), whose
//! fragments stay in registers. The other side is staged in workgroup memory, `columns` rows a turn. The scores of a strip
//! go through workgroup memory as f32, for there is no access to single elements of a fragment; weights come back as f16.
//! The backward accumulates in fragments. Forward, the sums of a turn go through workgroup memory and are added, scaled,
//! to an output in the lanes' registers: on NVIDIA, an accumulator that is stored, scaled and loaded again computes wrong
//! numbers. On an H200 with heads of 64: 44 TFLOP/s forward, 64 and 65 backward.
//!
//! Where subgroups have one size there is one for each strip, whose lanes exchange numbers by shuffles and wait for each
//! other alone. Elsewhere a driver chooses the size. Where it makes fewer subgroups than there are strips, they take
//! several passes over the other side; where it makes more, the spare ones compute the last strip of the pass again, for
//! matrix operations must be met by all. Lanes then take rows by their number in the workgroup, and exchange numbers
//! through workgroup memory. The bits are those of subgroups of the size that the kernel is laid out for.

mod fragments;
mod subgroups;

use self::subgroups::{Joined, Subgroups};
use super::source::{Form, Pass};
use crate::kernel::{Dtype, Kernel, Target};
use crate::ops::matmul::source::Code;

/// Strips of a workgroup, and mostly subgroups; 2 were half as fast, and with 8 a driver did not finish compiling.
const STRIPS: u32 = 4;
/// Halves that pad a row in workgroup memory, against bank conflicts.
const PAD: u32 = 8;
/// Floats that pad a row of scores.
const PAD_SCORES: u32 = 4;
/// Most channels of a head.
const MAX_HEAD_WIDTH: u32 = 128;
/// Most channels of the sums of a row that go through workgroup memory at once.
const SUMS: u32 = 64;

/// The numbers of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cooperative {
    form: Form,
    pass: Pass,
    /// Side of a fragment.
    side: u32,
    subgroups: Subgroups,
    /// Rows of the other side a turn.
    columns: u32,
    /// Whether the lanes of a subgroup can wait for each other alone, and not only a whole workgroup.
    subgroup_barrier: bool,
    /// Whether workgroup memory is of `vec4`, which is faster; Metal loads fragments from scalars only.
    vectors: bool,
}

/// Whether the device has fragments for heads of this form.
pub fn takes(form: &Form, target: &Target) -> bool {
    form.dtype == Dtype::F16
        && target.f16
        && form.head_width.is_multiple_of(16)
        && form.head_width <= MAX_HEAD_WIDTH
        && Pass::ALL.into_iter().all(|pass| Cooperative::new(*form, pass, target).is_some())
}

/// Whether a kernel can rotate what it loads: whole vectors, both of a pair in the sums that are at hand together.
pub fn rotates(form: &Form) -> bool {
    form.half.is_multiple_of(4) && 2 * form.half <= sums_width(form)
}

/// Channels of the sums of a row that go through workgroup memory at once.
fn sums_width(form: &Form) -> u32 {
    (1..=SUMS / 16).rev().map(|n| 16 * n).find(|&wide| form.head_width.is_multiple_of(wide)).unwrap_or(form.head_width)
}

impl Cooperative {
    /// The kernel of a form, where the device has what it needs: fragments, subgroups whose size may be a multiple of
    /// their side, workgroup memory.
    pub fn new(form: Form, pass: Pass, target: &Target) -> Option<Self> {
        let side = target.fragments.best(Dtype::F16)?.side;
        let subgroups = Subgroups::new(side, target)?;
        let vectors = side == 16 || target.software;
        // Software drivers compile the emulation of every fragment inline, for minutes where there are many.
        let widest = if target.software { 16 } else { STRIPS * side };
        let turns = [64, 32, 16].into_iter().filter(|&columns| columns <= widest && columns >= widest / 2);
        let mut kernels = turns.map(|columns| Self {
            form,
            pass,
            side,
            subgroups,
            columns,
            subgroup_barrier: target.subgroup_barrier,
            vectors,
        });
        kernels.find(|kernel| kernel.workgroup_bytes() <= target.workgroup_bytes)
    }

    fn invocations(&self) -> u32 {
        self.subgroups.invocations()
    }

    /// Own rows of a workgroup.
    pub fn rows(&self) -> u32 {
        STRIPS * self.side
    }

    /// Lanes to a row of a strip.
    fn per_row(&self) -> u32 {
        self.subgroups.lanes / self.side
    }

    /// Fragments along the channels of a head.
    fn deep(&self) -> u32 {
        self.form.head_width / self.side
    }

    /// Channels of the own rows that are staged at once.
    fn own_width(&self) -> u32 {
        if self.rows() > self.columns { sums_width(&self.form) } else { self.form.head_width }
    }

    /// Halves from row to row of the other side in workgroup memory.
    fn pitch(&self) -> u32 {
        self.form.head_width + PAD
    }

    /// Floats from row to row of the scores, or sums.
    fn score_pitch(&self) -> u32 {
        self.columns.max(sums_width(&self.form)) + PAD_SCORES
    }

    /// Halves from row to row of the weights.
    fn weight_pitch(&self) -> u32 {
        self.columns + PAD
    }

    /// Halves of one staged side.
    fn side_elements(&self) -> u32 {
        (self.columns * self.pitch()).max(self.rows() * (self.own_width() + PAD))
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self) -> u32 {
        let statistics = if self.pass == Pass::BackwardKeysValues { 8 * self.columns } else { 0 };
        let rows = self.rows() * (4 * self.score_pitch() + 2 * self.weight_pitch());
        4 * self.side_elements() + rows + statistics + 4 * self.shared_floats()
    }

    /// Most loop iterations of an invocation, for software drivers; a loop counts once more than it turns.
    pub(crate) fn iterations(&self, far_rows: usize) -> usize {
        let turn = (self.columns * self.form.vectors()).div_ceil(self.invocations()) + 1 + 1;
        let own = (self.rows() * self.form.vectors()).div_ceil(self.invocations()) + 2;
        let pass = far_rows.div_ceil(self.columns as usize) * turn as usize + own as usize + 2;
        if self.subgroups.vary { (pass + 1) * STRIPS as usize } else { pass }
    }

    /// Of the kernel and its text.
    pub fn name(&self) -> String {
        let Self { pass, side, columns, subgroups, .. } = self;
        let scalars = if self.vectors { "" } else { "-scalars" };
        let barrier = if self.subgroup_barrier || subgroups.vary { "" } else { "-workgroup" };
        let entry = pass.entry();
        format!(
            "attention-{entry}-cooperative{side}-{columns}-{}{scalars}{barrier}-{}",
            subgroups.suffix(),
            self.form.suffix()
        )
    }

    /// The kernel, its text generated the first time.
    pub fn kernel(&self) -> &'static Kernel {
        Kernel::generated_as(&self.name(), self.pass.entry(), self.form.bindings(self.pass), || self.generate())
    }

    /// The WGSL.
    pub fn generate(&self) -> String {
        let mapping = format!(
            "one workgroup per (batch, head, tile of {} rows); a subgroup to {} of them{}, {} lane(s) to a row.",
            self.rows(),
            self.side,
            if self.subgroups.vary { " a pass" } else { "" },
            self.per_row()
        );
        let mut code = self.form.begin(self.pass, &self.name(), &mapping, "enable wgpu_cooperative_matrix;");
        self.workgroup_memory(&mut code);
        code.push(format!(
            "
            @compute @workgroup_size({})
            fn {}(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
            @builtin(subgroup_id) subgroup: u32,
            @builtin({}: u32,
            ) {{",
            self.invocations(),
            self.pass.entry(),
            if self.subgroups.vary { "num_subgroups) subgroups" } else { "subgroup_invocation_id) inner" },
        ));
        self.begin_tiles(&mut code);
        code.push(format!(
            "let own_row = min(row, dims.q_rows - 1u);
            let own_base = batch * dims.q_rows;
            let at = (own_base + own_row) * pitch + column;
            let base = batch * dims.{};",
            if self.pass == Pass::Forward { "kv_rows" } else { "q_rows" }
        ));
        self.form.mask(&mut code);
        match self.pass {
            Pass::Forward => self.forward(&mut code),
            Pass::BackwardQueries => self.backward_queries(&mut code),
            Pass::BackwardKeysValues => self.backward_keys_values(&mut code),
        }
        self.end_tiles(&mut code);
        code.push("}");
        code.finish()
    }

    fn forward(&self, code: &mut Code) {
        let per_row = self.per_row();
        self.own_fragments(code, &[("x", "q", "run.position")]);
        let sums = self.form.vectors() / per_row;
        for c in 0..sums {
            code.push(format!("var a{c} = vec4<f32>();"));
        }
        code.push(format!(
            "let me = run.position + own_row; // the last key that it sees
            let far_first = 0u;
            let far_end = run.position + min(first + {}u, dims.q_rows);
            var largest = HIDDEN;
            var sum = 0.0;",
            self.rows()
        ));
        self.begin_far(code, "k", "v");
        self.scores(code, "x", "x");
        self.meet(code);
        code.push("var now = largest;");
        for c in 0..self.columns / per_row / 4 {
            code.push(format!(
                "let seen{c} = {} <= vec4<u32>(me);
                let s{c} = select(vec4<f32>(HIDDEN), scores({}) * {}, seen{c});
                now = max(now, max(max(s{c}.x, s{c}.y), max(s{c}.z, s{c}.w)));",
                self.far_rows(c),
                self.score_at(c),
                self.form.scale2(),
            ));
        }
        self.over_lanes(code, "now", Joined::Largest);
        // exp2(0) need not be exactly 1 on a driver, and a turn that a row does not see must not change its bits.
        code.push(
            "let shrink = select(1.0, exp2(largest - now), now > largest);
            largest = now;
            sum *= shrink;",
        );
        for c in 0..self.columns / per_row / 4 {
            // Some drivers' exp2 of a very small number is not 0.
            code.push(format!(
                "{{
                let p = select(vec4<f32>(), exp2(s{c} - largest), seen{c});
                sum += p.x + p.y + p.z + p.w;
                put_weights({}, vec4<f16>({}));
                }}",
                self.weight_at(c),
                self.form.dropped("p", &self.factors(c)),
            ));
        }
        self.meet(code);
        for d in 0..self.deep() {
            code.push(format!("var o{d} = {};", self.accumulator()));
        }
        self.accumulate(code, &[("o", "y")]);
        let (mut index, mut first) = (0, 0);
        for wide in self.sum_chunks() {
            self.store_sums(code, "o", first, wide);
            self.meet(code);
            for c in 0..wide / per_row / 4 {
                let at = self.sum_at(wide, c);
                code.push(format!("a{index} = fma(a{index}, vec4<f32>(shrink), scores({at}));"));
                index += 1;
            }
            self.meet(code);
            first += wide;
        }
        code.push("}");
        self.over_lanes(code, "sum", Joined::Sum);
        code.push(format!("let norm = 1.0 / sum;\nif ({}) {{", self.stores()));
        let (mut index, mut first) = (0, 0);
        for wide in self.sum_chunks() {
            for c in 0..wide / per_row / 4 {
                let v = self.sum_vector(first, wide, c);
                code.push(format!("exact[at + {v}] = a{index} * norm;\no[at + {v}] = vec4<f16>(a{index} * norm);"));
                index += 1;
            }
            first += wide;
        }
        code.push("if (part == 0u) { stat[head_rows + own_row] = vec2<f32>(largest + log2(sum), 0.0); }\n}");
    }

    fn backward_queries(&self, code: &mut Code) {
        self.own_fragments(code, &[("x", "q", "0u"), ("y", "dout", "")]);
        for d in 0..self.deep() {
            code.push(format!("var a{d} = {};", self.accumulator()));
        }
        code.push(format!(
            "let me = own_row;
            let far_first = 0u;
            let far_end = min(first + {}u, dims.q_rows);
            let lse = stat[head_rows + own_row].x;
            var delta = 0.0;",
            self.rows()
        ));
        for c in 0..self.form.vectors() / self.per_row() {
            let at = format!("at + {}u + part", c * self.per_row());
            code.push(format!("{{\nlet y = vec4<f32>(dout[{at}]);\nlet z = o[{at}];"));
            for c in ["x", "y", "z", "w"] {
                code.push(format!("delta = fma(y.{c}, z.{c}, delta);"));
            }
            code.push("}");
        }
        self.over_lanes(code, "delta", Joined::Sum);
        self.begin_far(code, "k", "v");
        self.scores(code, "x", "x");
        self.meet(code);
        for c in 0..self.columns / self.per_row() / 4 {
            code.push(format!(
                "let p{c} = select(vec4<f32>(), exp2(min(scores({}) * {} - lse, vec4<f32>())), {} <= vec4<u32>(me));",
                self.score_at(c),
                self.form.scale2(),
                self.far_rows(c),
            ));
        }
        self.meet(code);
        self.scores(code, "y", "y");
        self.meet(code);
        for c in 0..self.columns / self.per_row() / 4 {
            let dp = self.form.dropped(&format!("scores({})", self.score_at(c)), &self.factors(c));
            code.push(format!(
                "put_weights({}, vec4<f16>(p{c} * ({dp} - delta) * {}));",
                self.weight_at(c),
                self.form.scale(),
            ));
        }
        self.meet(code);
        self.accumulate(code, &[("a", "x")]);
        code.push("}");
        self.put_rotated_back(code, "a", "dq", self.form.rotates("q"));
        // Each lane has read its log-sum: the other number of the pair is free to be written.
        let stores = self.stores();
        code.push(format!("if (part == 0u && {stores}) {{ stat[head_rows + own_row].y = delta; }}"));
    }

    fn backward_keys_values(&self, code: &mut Code) {
        self.own_fragments(code, &[("x", "k", "0u"), ("y", "v", "")]);
        for d in 0..self.deep() {
            code.push(format!("var a{d} = {0};\nvar c{d} = {0};", self.accumulator()));
        }
        code.push(
            "let me = own_row;
            // Queries before this tile of keys do not see it.
            let far_first = first;
            let far_end = dims.q_rows;",
        );
        self.begin_far(code, "q", "dout");
        self.scores(code, "x", "x");
        self.meet(code);
        let stat = |c: u32, of: &str| {
            let at = self.far_columns(c);
            let four = [0, 1, 2, 3].map(|i| format!("sh_stat[{at} + {i}u].{of}"));
            format!("vec4<f32>({})", four.join(", "))
        };
        for c in 0..self.columns / self.per_row() / 4 {
            code.push(format!(
                "let p{c} = select(vec4<f32>(), exp2(min(scores({}) * {} - {}, vec4<f32>())), {} >= vec4<u32>(me));
                put_weights({}, vec4<f16>({}));",
                self.score_at(c),
                self.form.scale2(),
                stat(c, "x"),
                self.far_rows(c),
                self.weight_at(c),
                self.form.dropped(&format!("p{c}"), &self.factors(c)),
            ));
        }
        self.meet(code);
        self.accumulate(code, &[("c", "y")]);
        self.scores(code, "y", "y");
        self.meet(code);
        for c in 0..self.columns / self.per_row() / 4 {
            let dp = self.form.dropped(&format!("scores({})", self.score_at(c)), &self.factors(c));
            code.push(format!(
                "put_weights({}, vec4<f16>(p{c} * ({dp} - {}) * {}));",
                self.weight_at(c),
                stat(c, "y"),
                self.form.scale(),
            ));
        }
        self.meet(code);
        self.accumulate(code, &[("a", "x")]);
        code.push("}");
        self.put_rotated_back(code, "a", "dk", self.form.rotates("k"));
        self.put_rotated_back(code, "c", "dv", false);
    }
}
