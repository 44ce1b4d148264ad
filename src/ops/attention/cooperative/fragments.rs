//! How cooperative attention moves rows and fragments: staging, loads and stores through workgroup memory.

use super::super::source::Pass;
use super::{Cooperative, PAD, sums_width};
use crate::ops::matmul::source::Code;

impl Cooperative {
    /// Workgroup memory, and how vectors get in and out of it.
    pub(super) fn workgroup_memory(&self, code: &mut Code) {
        let rows = self.rows();
        for (name, element, count) in [
            ("x", "f16", self.side_elements()),
            ("y", "f16", self.side_elements()),
            ("scores", "f32", rows * self.score_pitch()),
            ("weights", "f16", rows * self.weight_pitch()),
        ] {
            // Of four halves, not of eight: half of the rotated channels may be 4 or 12, and would end within an element.
            if self.vectors {
                code.push(format!("var<workgroup> sh_{name}: array<vec4<{element}>, {}>;", count / 4));
            } else {
                code.push(format!("var<workgroup> sh_{name}: array<{element}, {count}>;"));
            }
        }
        if self.pass == Pass::BackwardKeysValues {
            code.push(format!("var<workgroup> sh_stat: array<vec2<f32>, {}>;", self.columns));
        }
        if self.subgroups.vary {
            code.push(format!("var<workgroup> sh_lanes: array<f32, {}>;", self.shared_floats()));
        }
        for name in ["x", "y", "weights"] {
            let body = if self.vectors {
                format!("sh_{name}[i] = value;")
            } else {
                (0..4).map(|c| format!("sh_{name}[4u * i + {c}u] = value[{c}]; ")).collect()
            };
            code.push(format!("fn put_{name}(i: u32, value: vec4<f16>) {{ {body} }}"));
        }
        if self.form.half > 0 {
            let value = if self.vectors {
                "sh_x[i]".to_owned()
            } else {
                let four = [0, 1, 2, 3].map(|c| format!("sh_x[4u * i + {c}u]"));
                format!("vec4<f16>({})", four.join(", "))
            };
            code.push(format!("fn staged_x(i: u32) -> vec4<f16> {{ return {value}; }}"));
        }
        let scores = if self.vectors {
            "sh_scores[i]".to_owned()
        } else {
            let four = [0, 1, 2, 3].map(|c| format!("sh_scores[4u * i + {c}u]"));
            format!("vec4<f32>({})", four.join(", "))
        };
        code.push(format!("fn scores(i: u32) -> vec4<f32> {{ return {scores}; }}"));
    }

    /// Fragments of the own rows, (name, tensor, position of row 0), staged on the way.
    pub(super) fn own_fragments(&self, code: &mut Code, of: &[(&str, &str, &str)]) {
        let (wide, invocations) = (self.own_width(), self.invocations());
        let pitch = wide + PAD;
        for first in (0..self.form.head_width).step_by(wide as usize) {
            code.push(format!(
                "workgroupBarrier();
                for (var e = lane; e < {}u; e += {invocations}u) {{
                let r = e / {vectors}u;
                let there = min(first + r, dims.q_rows - 1u);
                let start = (own_base + there) * pitch + column;
                let to = r * {}u + e % {vectors}u;",
                self.rows() * wide / 4,
                pitch / 4,
                vectors = wide / 4,
            ));
            for (name, tensor, _) in of {
                code.push(format!("put_{name}(to, {tensor}[start + {}u + e % {}u]);", first / 4, wide / 4));
            }
            code.push("}");
            for (name, _, position) in of.iter().filter(|(_, tensor, _)| first == 0 && self.form.rotates(tensor)) {
                self.rotate(code, name, self.rows(), pitch, &format!("{position} + min(first + r, dims.q_rows - 1u)"));
            }
            code.push("workgroupBarrier();");
            for (d, (name, ..)) in (0..wide / self.side).flat_map(|d| of.iter().map(move |of| (d, of))) {
                let load = self.load("A", true, name, &format!("strip * {}u", self.unit(pitch)), d * self.side, pitch);
                code.push(format!("let {name}{} = {load};", first / self.side + d));
            }
        }
    }

    /// Rotates the `rows` staged rows of `name` in place, row r as of `position`. On an H100 kernels whose loads rotated, with
    /// a branch around the channels that do not, took two to three times as long as without rotation.
    fn rotate(&self, code: &mut Code, name: &str, rows: u32, pitch: u32, position: &str) {
        let half = self.form.half_vectors();
        // fma, written out: rotating in the kernel and ahead of it gives the same bits.
        code.push(format!(
            "workgroupBarrier();
            for (var e = lane; e < {}u; e += {}u) {{
            let r = e / {half}u;
            let entry = ({position}) * {}u + e % {half}u;
            let cosine = rope[entry];
            let sine = rope[entry + {half}u];
            let at = r * {}u + e % {half}u;
            let x = vec4<f32>(staged_{name}(at));
            let y = vec4<f32>(staged_{name}(at + {half}u));
            put_{name}(at, vec4<f16>(fma(x, cosine, -(y * sine))));
            put_{name}(at + {half}u, vec4<f16>(fma(y, cosine, x * sine)));
            }}",
            rows * half,
            self.invocations(),
            2 * half,
            pitch / 4,
        ));
    }

    /// Opens the loop over turns: so many rows of two tensors of the other side in workgroup memory, as x and y.
    pub(super) fn begin_far(&self, code: &mut Code, x: &str, y: &str) {
        let (columns, vectors) = (self.columns, self.form.vectors());
        code.push(format!(
            "for (var block = far_first; block < far_end; block += {columns}u) {{
            workgroupBarrier();
            for (var e = lane; e < {}u; e += {}u) {{
            let vector = e % {vectors}u;
            let there = block + e / {vectors}u;
            // Zeros past the end: what a cache holds there is not read.
            let far = min(there, far_end - 1u);
            let start = (base + far) * pitch + column;
            let to = e / {vectors}u * {}u + vector;
            put_x(to, select(vec4<f16>(), {x}[start + vector], there < far_end));
            put_y(to, select(vec4<f16>(), {y}[start + vector], there < far_end));
            }}",
            columns * vectors,
            self.invocations(),
            self.pitch() / 4,
        ));
        if self.form.rotates(x) {
            self.rotate(code, "x", columns, self.pitch(), "min(block + r, far_end - 1u)");
        }
        if self.pass == Pass::BackwardKeysValues {
            code.push(format!(
                "for (var e = lane; e < {columns}u; e += {}u) {{
                let there = block + e;
                let known = stat[head_rows + min(there, far_end - 1u)];
                sh_stat[e] = select(vec2<f32>(), known, there < far_end);
                }}",
                self.invocations()
            ));
        }
        code.push("workgroupBarrier();");
    }

    /// The products of a strip, in fragments {own}0, ..., with the staged rows of `far`, to the scores.
    pub(super) fn scores(&self, code: &mut Code, own: &str, far: &str) {
        let (side, pitch, wide) = (self.side, self.pitch(), self.score_pitch());
        for n in 0..self.columns / side {
            code.push(format!("{{\nvar z = {};", self.accumulator()));
            for d in 0..self.deep() {
                let b = self.load("B", false, far, "0u", n * side * pitch + d * side, pitch);
                code.push(format!("{{\nlet b = {b};\nz = coopMultiplyAdd({own}{d}, b, z);\n}}"));
            }
            self.store(code, "z", n * side, wide);
            code.push("}");
        }
    }

    /// {sum}{d} += the weights of a strip times the staged rows of `far`.
    pub(super) fn accumulate(&self, code: &mut Code, of: &[(&str, &str)]) {
        let (side, pitch, weight_pitch) = (self.side, self.pitch(), self.weight_pitch());
        for n in 0..self.columns / side {
            let strip = format!("strip * {}u", self.unit(weight_pitch));
            let f = self.load("A", true, "weights", &strip, n * side, weight_pitch);
            code.push(format!("{{\nlet f = {f};"));
            for (d, (sum, far)) in (0..self.deep()).flat_map(|d| of.iter().map(move |of| (d, of))) {
                let b = self.load("B", true, far, "0u", n * side * pitch + d * side, pitch);
                code.push(format!("{{\nlet b = {b};\n{sum}{d} = coopMultiplyAdd(f, b, {sum}{d});\n}}"));
            }
            code.push("}");
        }
    }

    /// Widths of the parts in which the sums of a row go through workgroup memory.
    pub(super) fn sum_chunks(&self) -> impl Iterator<Item = u32> {
        let wide = sums_width(&self.form);
        (0..self.form.head_width / wide).map(move |_| wide)
    }

    /// Stores the accumulators of channels `first` to `first + wide` of a strip where its scores were.
    pub(super) fn store_sums(&self, code: &mut Code, name: &str, first: u32, wide: u32) {
        for d in 0..wide / self.side {
            code.push("{");
            self.store(code, &format!("{name}{}", first / self.side + d), d * self.side, self.score_pitch());
            code.push("}");
        }
    }

    /// Writes the sums in accumulators, turned back from a row's position where `rotated`.
    pub(super) fn put_rotated_back(&self, code: &mut Code, name: &str, to: &str, rotated: bool) {
        let half = self.form.half_vectors();
        let mut first = 0;
        for wide in self.sum_chunks() {
            self.meet(code);
            self.store_sums(code, name, first, wide);
            self.meet(code);
            code.push(format!("if ({}) {{", self.stores()));
            for c in 0..wide / self.per_row() / 4 {
                let (v, at) = (self.sum_vector(first, wide, c), self.sum_at(wide, c));
                code.push(format!("{{\nlet vector = {v};\nvar x = scores({at});"));
                if rotated && first == 0 && c < 2 * half {
                    code.push(format!(
                        "if (vector < {0}u) {{
                        let first_half = vector < {half}u;
                        let other = scores(own * {1}u + select(vector - {half}u, vector + {half}u, first_half));
                        let entry = own_row * {0}u + select(vector - {half}u, vector, first_half);
                        let by_sine = other * rope[entry + {half}u];
                        x = fma(x, rope[entry], select(-by_sine, by_sine, first_half));
                        }}",
                        2 * half,
                        self.score_pitch() / 4
                    ));
                }
                code.push(format!("{to}[at + vector] = vec4<f16>(x);\n}}"));
            }
            code.push("}");
            first += wide;
        }
    }

    /// An accumulator of zeros.
    pub(super) fn accumulator(&self) -> String {
        format!("coop_mat{0}x{0}<f32, C>()", self.side)
    }

    /// `elements` in what workgroup memory counts in.
    pub(super) fn unit(&self, elements: u32) -> u32 {
        if self.vectors { elements / 4 } else { elements }
    }

    /// Loads a fragment from element `offset` after `start`; `by_rows`: as it lies, otherwise transposed.
    pub(super) fn load(&self, role: &str, by_rows: bool, name: &str, from: &str, offset: u32, pitch: u32) -> String {
        let load = if by_rows { "coopLoadT" } else { "coopLoad" };
        let (side, offset, pitch) = (self.side, self.unit(offset), self.unit(pitch));
        format!("{load}<coop_mat{side}x{side}<f16, {role}>>(&sh_{name}[{from} + {offset}u], {pitch}u)")
    }

    /// Stores an accumulator in the scores of a strip, from column `column` on.
    pub(super) fn store(&self, code: &mut Code, name: &str, column: u32, pitch: u32) {
        let (column, pitch) = (self.unit(column), self.unit(pitch));
        // naga takes the index and stride of a store from names only.
        code.push(format!(
            "let to = strip * {pitch}u + {column}u;
            let stride = {pitch}u;
            coopStoreT({name}, &sh_scores[to], stride);"
        ));
    }

    /// Column of a turn that starts vector `c` of a lane.
    pub(super) fn far_columns(&self, c: u32) -> String {
        format!("part * {}u + {}u", self.columns / self.per_row(), 4 * c)
    }

    /// Rows of the other side of vector `c` of a lane.
    pub(super) fn far_rows(&self, c: u32) -> String {
        format!("(vec4<u32>(block + {}) + vec4<u32>(0u, 1u, 2u, 3u))", self.far_columns(c))
    }

    /// The factors of dropout of vector `c` of a lane, which begins at an even row of the other side.
    pub(super) fn factors(&self, c: u32) -> String {
        let at = |i: u32| format!("block + {} + {i}u", self.far_columns(c));
        let pairs = match self.pass {
            Pass::Forward | Pass::BackwardQueries => [0, 2].map(|i| format!("dropout_across(mask, me, {})", at(i))),
            Pass::BackwardKeysValues => [0, 2].map(|i| format!("dropout_down(mask, {}, me)", at(i))),
        };
        format!("vec4<f32>({})", pairs.join(", "))
    }

    /// Where vector `c` of a lane's scores is.
    pub(super) fn score_at(&self, c: u32) -> String {
        format!("own * {}u + part * {}u + {c}u", self.score_pitch() / 4, self.columns / self.per_row() / 4)
    }

    /// Where vector `c` of a lane's weights goes.
    pub(super) fn weight_at(&self, c: u32) -> String {
        format!("own * {}u + part * {}u + {c}u", self.weight_pitch() / 4, self.columns / self.per_row() / 4)
    }

    /// Where vector `c` of a lane's sums is.
    pub(super) fn sum_at(&self, wide: u32, c: u32) -> String {
        format!("own * {}u + part * {}u + {c}u", self.score_pitch() / 4, wide / self.per_row() / 4)
    }

    /// Which vector of its head that is.
    pub(super) fn sum_vector(&self, first: u32, wide: u32, c: u32) -> String {
        format!("{}u + part * {}u + {c}u", first / 4, wide / self.per_row() / 4)
    }
}
