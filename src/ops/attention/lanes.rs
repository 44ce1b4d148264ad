//! Attention on the lanes of a GPU, in f32: a row belongs to a few neighbouring lanes, which hold it in registers.
//!
//! Rows (queries; keys for dk and dv) are split by `vec4`: of `per_row` lanes, lane g holds vectors g, g + per_row, ...
//! The other side goes through workgroup memory, some rows at a time, read by all lanes at once. No score is ever
//! stored, and no lane waits but for staging. On an H200 with heads of 64: 18 TFLOP/s forward, 22 and 25 backward, where
//! a form with scores in workgroup memory had 4.5.

use super::source::{Form, Pass, item_loop};
use crate::kernel::{Dtype, Kernel, Target};
use crate::ops::matmul::source::Code;

/// Rows of the other side in workgroup memory; 64 were slower, 16 hardly.
const STAGED: u32 = 32;
/// The least of them: with heads of 256 they fit what every device has.
const LEAST_STAGED: u32 = 4;
/// Bytes staged where a device has more: beyond, fewer workgroups fit a multiprocessor.
const STAGED_BYTES: u32 = 16 * 1024;
/// Vectors of a row that a lane holds without spilling: it has four such sets for dk and dv.
const VECTORS: u32 = 8;
/// Most lanes to a row: the smallest subgroups have 4, of GPUs 8.
const MOST_PER_ROW: u32 = 8;

/// The numbers of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    form: Form,
    pass: Pass,
    /// Lanes to a row, a power of two.
    per_row: u32,
    /// Rows of the other side in workgroup memory.
    staged: u32,
    /// Whether lanes exchange partial sums by subgroup operations, or through workgroup memory.
    shuffles: bool,
}

/// The factor of dropout of row `u` at hand.
fn factor(u: u32) -> String {
    format!("f{}.{}", u - u % 2, if u.is_multiple_of(2) { "x" } else { "y" })
}

/// Lanes to a row.
fn per_row(form: &Form) -> u32 {
    let vectors = form.vectors();
    let mut lanes = 1;
    while vectors / lanes > VECTORS && vectors.is_multiple_of(2 * lanes) && lanes < MOST_PER_ROW {
        lanes *= 2;
    }
    lanes
}

/// Whether heads are of a width for these kernels: whole vectors, and not so many in a lane that compilers give up.
pub fn takes(form: &Form) -> bool {
    form.head_width.is_multiple_of(4) && form.vectors() / per_row(form) <= 2 * VECTORS
}

/// Whether a kernel can rotate what it loads: both channels of a pair must be in one lane, in whole vectors.
pub fn rotates(form: &Form) -> bool {
    form.half.is_multiple_of(4) && form.half_vectors().is_multiple_of(per_row(form))
}

impl Lanes {
    /// The kernel of a form that [`takes`] accepts.
    pub fn new(form: Form, pass: Pass, target: &Target) -> Self {
        let per_row = per_row(&form);
        let shuffles = per_row == 1 || target.subgroup_sizes[0] >= per_row.max(4);
        let mut lanes = Self { form, pass, per_row, staged: STAGED, shuffles };
        let bytes_fit = |lanes: &Self| {
            lanes.staged * form.head_width * 8 <= STAGED_BYTES && lanes.workgroup_bytes() <= target.workgroup_bytes
        };
        while lanes.staged > LEAST_STAGED && !bytes_fit(&lanes) {
            lanes.staged /= 2;
        }
        lanes
    }

    /// Rows of the other side that are taken together, as measured on an H200: the backward holds up to twice as much in registers.
    fn at_once(&self) -> u32 {
        if self.pass == Pass::Forward { self.staged.min(8) } else { 4 }
    }

    fn invocations(&self) -> u32 {
        if self.per_row == 1 { 64 } else { 128 }
    }

    /// Own rows of a workgroup.
    pub fn rows(&self) -> u32 {
        self.invocations() / self.per_row
    }

    /// Vectors of a row in a lane.
    fn slots(&self) -> u32 {
        self.form.vectors() / self.per_row
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self) -> u32 {
        let statistics = if self.pass == Pass::BackwardKeysValues { 8 * self.staged } else { 0 };
        let exchange = if self.shuffles { 0 } else { 32 * self.invocations() };
        self.staged * self.form.head_width * 8 + statistics + exchange
    }

    /// Most loop iterations of an invocation, for software drivers; a loop counts once more than it turns.
    pub(crate) fn iterations(&self, far_rows: usize) -> usize {
        let staging = (self.staged * self.form.vectors()).div_ceil(self.invocations()) + 2;
        let block = staging + self.staged / self.at_once() + 2 + 1;
        far_rows.div_ceil(self.staged as usize) * block as usize + 2
    }

    /// Of the kernel and its text.
    pub fn name(&self) -> String {
        let exchange = if self.shuffles { "" } else { "-exchange" };
        let Self { pass, per_row, staged, .. } = self;
        format!("attention-{}-lanes{per_row}-{staged}{exchange}-{}", pass.entry(), self.form.suffix())
    }

    /// The kernel, its text generated the first time.
    pub fn kernel(&self) -> &'static Kernel {
        Kernel::generated_as(&self.name(), self.pass.entry(), self.form.bindings(self.pass), || self.generate())
    }

    /// The WGSL.
    pub fn generate(&self) -> String {
        let own = if self.pass == Pass::BackwardKeysValues { "key" } else { "query" };
        let mapping = format!(
            "one workgroup per (batch, head, tile of {} rows); {} lane(s) to a {own}, holding every {}. vec4.",
            self.rows(),
            self.per_row,
            self.per_row
        );
        let mut code = self.form.begin(self.pass, &self.name(), &mapping, "");
        self.form.readers(&mut code);
        let vectors = self.staged * self.form.vectors();
        let far = self.far();
        code.push(format!(
            "var<workgroup> sh_{}: array<vec4<f32>, {vectors}>;\nvar<workgroup> sh_{}: array<vec4<f32>, {vectors}>;",
            far[0], far[1]
        ));
        if self.pass == Pass::BackwardKeysValues {
            code.push(format!("var<workgroup> sh_stat: array<vec2<f32>, {}>;", self.staged));
        }
        if !self.shuffles {
            code.push(format!("var<workgroup> sh_sums: array<vec4<f32>, {}>;", 2 * self.invocations()));
        }
        let by_subgroup = self.shuffles && self.per_row > 1;
        let built_in = if by_subgroup {
            "@builtin(subgroup_id) subgroup: u32,
            @builtin(subgroup_size) subgroup_size: u32,
            @builtin(subgroup_invocation_id) inner: u32,"
        } else {
            "@builtin(local_invocation_index) lane: u32,"
        };
        code.push(format!(
            "
            @compute @workgroup_size({})
            fn {}(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            {built_in}
            ) {{",
            self.invocations(),
            self.pass.entry(),
        ));
        // Lanes that exchange must be neighbours in a subgroup, of whatever size, however a driver forms it.
        let lane = if by_subgroup { "let lane = subgroup * subgroup_size + inner;\n" } else { "" };
        let declare = format!("{lane}let part = lane % {0}u;\nlet own = lane / {0}u;", self.per_row);
        code.push(item_loop(&self.form, self.rows(), &declare, self.pass != Pass::BackwardKeysValues));
        self.form.mask(&mut code);
        match self.pass {
            Pass::Forward => self.forward(&mut code),
            Pass::BackwardQueries => self.backward_queries(&mut code),
            Pass::BackwardKeysValues => self.backward_keys_values(&mut code),
        }
        code.push("}\n}");
        code.finish()
    }

    /// The tensors of the other side.
    fn far(&self) -> [&'static str; 2] {
        if self.pass == Pass::BackwardKeysValues { ["q", "dout"] } else { ["k", "v"] }
    }

    fn forward(&self, code: &mut Code) {
        code.push(
            "let base = batch * dims.kv_rows;
            let row = first + own;
            // Rows past the end compute the last one again and are not written.
            let query = min(row, dims.q_rows - 1u);
            let seen = run.position + query; // the last key that it sees
            let at = (batch * dims.q_rows + query) * pitch + column;
            let far_first = 0u;
            let far_end = run.position + min(first + TILE, dims.q_rows);"
                .replace("TILE", &format!("{}u", self.rows())),
        );
        for i in 0..self.slots() {
            let v = self.vector(i);
            code.push(format!("let x{i} = vec4<f32>(q_at(at, {v}, seen)) * {};", self.form.scale2()));
            code.push(format!("var a{i} = vec4<f32>();"));
        }
        code.push("var largest = HIDDEN;\nvar sum = 0.0;");
        self.begin_far(code);
        self.dots(code, &[("s", "x", 0)]);
        for u in 0..self.at_once() {
            code.push(format!("let seen{u} = block + j + {u}u <= seen;\ns{u} = select(HIDDEN, s{u}, seen{u});"));
        }
        let four = |u: u32| format!("max(max(s{u}, s{}), max(s{}, s{}))", u + 1, u + 2, u + 3);
        let now = if self.at_once() == 8 { format!("max({}, {})", four(0), four(4)) } else { four(0) };
        code.push(format!("let now = {now};"));
        code.push(
            "// Rarely taken: the largest score of a row is soon met.
            if (now > largest) {
            let shrink = exp2(largest - now);
            largest = now;
            sum *= shrink;",
        );
        for i in 0..self.slots() {
            code.push(format!("a{i} *= shrink;"));
        }
        code.push("}");
        for u in 0..self.at_once() {
            // Some drivers' exp2 of a very small number is not 0.
            code.push(format!("let p{u} = select(0.0, exp2(s{u} - largest), seen{u});\nsum += p{u};"));
        }
        self.factors(code);
        let weight = self.drop_weights(code);
        self.sums(code, &[("a", weight, 1)]);
        code.push("}\n}\nlet norm = 1.0 / sum;\nif (row < dims.q_rows) {");
        for i in 0..self.slots() {
            code.push(format!("o[at + {}] = {};", self.vector(i), self.stored(&format!("a{i} * norm"))));
            if self.form.keeps_exact() {
                code.push(format!("exact[at + {}] = a{i} * norm;", self.vector(i)));
            }
        }
        code.push("if (part == 0u) { stat[head_rows + query] = vec2<f32>(largest + log2(sum), 0.0); }\n}");
    }

    fn backward_queries(&self, code: &mut Code) {
        code.push(
            "let base = batch * dims.q_rows;
            let row = first + own;
            let query = min(row, dims.q_rows - 1u);
            let at = (base + query) * pitch + column;
            let far_first = 0u;
            let far_end = min(first + TILE, dims.q_rows);
            let lse = stat[head_rows + query].x;
            var delta0 = 0.0;"
                .replace("TILE", &format!("{}u", self.rows())),
        );
        for i in 0..self.slots() {
            let v = self.vector(i);
            code.push(format!(
                "let x{i} = vec4<f32>(q_at(at, {v}, query)) * {};
                let y{i} = vec4<f32>(dout[at + {v}]);
                var a{i} = vec4<f32>();
                {{
                let z = o[at + {v}];",
                self.form.scale2()
            ));
            for c in ["x", "y", "z", "w"] {
                code.push(format!("delta0 = fma(y{i}.{c}, z.{c}, delta0);"));
            }
            code.push("}");
        }
        self.add_over_lanes(code, &["delta0".to_owned()]);
        self.begin_far(code);
        self.dots(code, &[("s", "x", 0), ("t", "y", 1)]);
        self.factors(code);
        for u in 0..4 {
            code.push(format!(
                "let p{u} = select(0.0, exp2(min(s{u} - lse, 0.0)), block + j + {u}u <= query);
                let e{u} = p{u} * ({} - delta0);",
                self.form.dropped(&format!("t{u}"), &factor(u)),
            ));
        }
        self.sums(code, &[("a", "e", 0)]);
        code.push("}\n}\nif (row < dims.q_rows) {");
        self.put_rotated_back(code, "dq", "query", self.form.rotates("q"));
        // Beside the log-sum, which each lane has read: a buffer of its own would be the ninth, and eight are sure to be there.
        code.push("if (part == 0u) { stat[head_rows + query].y = delta0; }\n}");
    }

    fn backward_keys_values(&self, code: &mut Code) {
        code.push(
            "let base = batch * dims.q_rows;
            let row = first + own;
            let key = min(row, dims.q_rows - 1u);
            let at = (base + key) * pitch + column;
            // Queries before this tile of keys do not see it.
            let far_first = first;
            let far_end = dims.q_rows;",
        );
        for i in 0..self.slots() {
            let v = self.vector(i);
            code.push(format!(
                "let x{i} = vec4<f32>(k_at(at, {v}, key)) * {};
                let y{i} = vec4<f32>(v[at + {v}]);
                var a{i} = vec4<f32>();
                var c{i} = vec4<f32>();",
                self.form.scale2()
            ));
        }
        self.begin_far(code);
        self.dots(code, &[("s", "x", 0), ("t", "y", 1)]);
        self.factors(code);
        for u in 0..4 {
            code.push(format!(
                "let stat{u} = sh_stat[j + {u}u];
                let p{u} = select(0.0, exp2(min(s{u} - stat{u}.x, 0.0)), block + j + {u}u >= key);
                let e{u} = p{u} * ({} - stat{u}.y);",
                self.form.dropped(&format!("t{u}"), &factor(u)),
            ));
        }
        let weight = self.drop_weights(code);
        self.sums(code, &[("a", "e", 0), ("c", weight, 1)]);
        code.push("}\n}\nif (row < dims.q_rows) {");
        self.put_rotated_back(code, "dk", "key", self.form.rotates("k"));
        for i in 0..self.slots() {
            code.push(format!("dv[at + {}] = {};", self.vector(i), self.stored(&format!("c{i}"))));
        }
        code.push("}");
    }

    /// Declares f{u}, for even u: factors of dropout of this lane's row with rows u and u + 1 at hand of the other side.
    fn factors(&self, code: &mut Code) {
        if !self.form.dropout {
            return;
        }
        for u in (0..self.at_once()).step_by(2) {
            let far = format!("block + j + {u}u");
            let factors = match self.pass {
                Pass::Forward => format!("dropout_across(mask, seen, {far})"),
                Pass::BackwardQueries => format!("dropout_across(mask, query, {far})"),
                Pass::BackwardKeysValues => format!("dropout_down(mask, {far}, key)"),
            };
            code.push(format!("let f{u} = {factors};"));
        }
    }

    /// Drops the weights p{u} where the kernel has dropout; the name of those that are left.
    fn drop_weights(&self, code: &mut Code) -> &'static str {
        if !self.form.dropout {
            return "p";
        }
        for u in 0..self.at_once() {
            code.push(format!("let kept{u} = {};", self.form.dropped(&format!("p{u}"), &factor(u))));
        }
        "kept"
    }

    /// The vector of a row that slot `i` of a lane holds.
    fn vector(&self, i: u32) -> String {
        format!("{}u + part", i * self.per_row)
    }

    /// An expression of `vec4<f32>` as it is stored.
    fn stored(&self, value: &str) -> String {
        if self.form.dtype == Dtype::F16 { format!("vec4<f16>({value})") } else { value.to_owned() }
    }

    /// Opens the loops over blocks of the other side, staged in workgroup memory, and over rows of a block, a few at once.
    fn begin_far(&self, code: &mut Code) {
        let (staged, vectors, invocations) = (self.staged, self.form.vectors(), self.invocations());
        let [x, y] = self.far();
        code.push(format!(
            "for (var block = far_first; block < far_end; block += {staged}u) {{
            workgroupBarrier();
            for (var e = lane; e < {}u; e += {invocations}u) {{
            let there = block + e / {vectors}u;
            // Zeros past the end: what a cache holds there is not read.
            let far = min(there, far_end - 1u);
            let start = (base + far) * pitch + column;
            sh_{x}[e] = select(vec4<f32>(), vec4<f32>({x}_at(start, e % {vectors}u, far)), there < far_end);
            sh_{y}[e] = select(vec4<f32>(), vec4<f32>({y}[start + e % {vectors}u]), there < far_end);
            }}",
            staged * vectors,
        ));
        if self.pass == Pass::BackwardKeysValues {
            code.push(format!(
                "if (lane < {staged}u) {{
                let there = block + lane;
                let known = stat[head_rows + min(there, far_end - 1u)];
                sh_stat[lane] = select(vec2<f32>(), known, there < far_end);
                }}"
            ));
        }
        code.push(format!(
            "workgroupBarrier();
            let span = min({staged}u, far_end - block);
            for (var j = 0u; j < span; j += {}u) {{",
            self.at_once()
        ));
    }

    /// Declares {name}{u}, the products of this lane's row (of {own}) with the rows at hand of the other side's tensor `far`.
    fn dots(&self, code: &mut Code, of: &[(&str, &str, usize)]) {
        let at_once = self.at_once();
        for (u, (name, ..)) in (0..at_once).flat_map(|u| of.iter().map(move |of| (u, of))) {
            code.push(format!("var {name}{u} = 0.0;"));
        }
        for i in 0..self.slots() {
            code.push("{");
            for (u, (_, own, far)) in (0..at_once).flat_map(|u| of.iter().map(move |of| (u, of))) {
                code.push(format!("let {own}_{u} = {};", self.far_vector(*far, u, i)));
            }
            for (u, (name, own, _)) in (0..at_once).flat_map(|u| of.iter().map(move |of| (u, of))) {
                for c in ["x", "y", "z", "w"] {
                    code.push(format!("{name}{u} = fma({own}{i}.{c}, {own}_{u}.{c}, {name}{u});"));
                }
            }
            code.push("}");
        }
        let names: Vec<String> =
            of.iter().flat_map(|(name, ..)| (0..at_once).map(move |u| format!("{name}{u}"))).collect();
        self.add_over_lanes(code, &names);
    }

    /// Vector of slot `i` in row j + u of the other side.
    fn far_vector(&self, far: usize, u: u32, i: u32) -> String {
        format!("sh_{}[(j + {u}u) * {}u + {}]", self.far()[far], self.form.vectors(), self.vector(i))
    }

    /// {sum}{i} += {weight}{u} times the rows at hand of `far`, ascending.
    fn sums(&self, code: &mut Code, of: &[(&str, &str, usize)]) {
        for i in 0..self.slots() {
            for u in 0..self.at_once() {
                for (sum, weight, far) in of {
                    let z = self.far_vector(*far, u, i);
                    code.push(format!("{sum}{i} = fma(vec4<f32>({weight}{u}), {z}, {sum}{i});"));
                }
            }
        }
    }

    /// Adds variables up over the lanes of a row, at most eight of them; every lane gets the same bits.
    fn add_over_lanes(&self, code: &mut Code, names: &[String]) {
        let mut apart = 1;
        while apart < self.per_row {
            if self.shuffles {
                for name in names {
                    code.push(format!("{name} += subgroupShuffleXor({name}, {apart}u);"));
                }
            } else {
                let padded = |at: usize| names.get(at).map_or("0.0", |name| name.as_str());
                let four = |at: usize| [at, at + 1, at + 2, at + 3].map(padded).join(", ");
                code.push(format!(
                    "workgroupBarrier();
                    sh_sums[2u * lane] = vec4<f32>({});
                    sh_sums[2u * lane + 1u] = vec4<f32>({});
                    workgroupBarrier();
                    let low{apart} = sh_sums[2u * (lane ^ {apart}u)];
                    let high{apart} = sh_sums[2u * (lane ^ {apart}u) + 1u];",
                    four(0),
                    four(4),
                ));
                for (name, at) in names.iter().zip(0..) {
                    let from = if at < 4 { "low" } else { "high" };
                    code.push(format!("{name} += {from}{apart}.{};", ["x", "y", "z", "w"][at % 4]));
                }
            }
            apart *= 2;
        }
    }

    /// Writes the sums in a0, a1, ..., scaled and, with `rotated`, turned back from `position`.
    fn put_rotated_back(&self, code: &mut Code, to: &str, position: &str, rotated: bool) {
        let half = self.form.half_vectors();
        let slots = if rotated { half / self.per_row } else { 0 };
        let put = |i: u32, value: &str| format!("{to}[at + {}] = {};", self.vector(i), self.stored(value));
        for i in 0..slots {
            let other = i + slots;
            code.push(format!(
                "{{
                let entry = {position} * {}u + {};
                let x = a{i} * {scale};
                let y = a{other} * {scale};
                {}
                {}
                }}",
                2 * half,
                self.vector(i),
                put(i, &format!("fma(x, rope[entry], y * rope[entry + {half}u])")),
                put(other, &format!("fma(y, rope[entry], -(x * rope[entry + {half}u]))")),
                scale = self.form.scale(),
            ));
        }
        for i in 2 * slots..self.slots() {
            code.push(put(i, &format!("a{i} * {}", self.form.scale())));
        }
    }
}
