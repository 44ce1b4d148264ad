//! What the generated attention kernels share: the uniform block, the bindings, and the rotation of q and k.

use crate::kernel::Access::{self, Read, Uniform, Write};
use crate::kernel::{Dtype, ParameterBlock, Parameters, declare, parameter_block};
use crate::ops::matmul::source::Code;

parameter_block! {
    /// The parameter block of the generated kernels of attention.
    pub(crate) struct Dims {
        batch: u32,
        heads: u32,
        q_rows: u32,
        /// rows per sequence of k and v: q_rows, or the capacity of a cache
        kv_rows: u32,
        /// of dropout, in kernels that have it
        place: u32,
    }
}

/// Fields of [`Dims`] that kernels without dropout declare.
const WITHOUT_DROPOUT: usize = 4;

impl Dims {
    /// What the kernels of a form declare of it.
    pub(crate) fn of_form(self, form: &Form) -> ParameterBlock {
        let block = ParameterBlock::from(self);
        if form.dropout { block } else { block.first_fields(WITHOUT_DROPOUT) }
    }
}

/// Which of the three kernels of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// o and the log-sums.
    Forward,
    /// dq, and <do, o> of each row.
    BackwardQueries,
    /// dk and dv.
    BackwardKeysValues,
}

impl Pass {
    /// All of them, in the order they run.
    pub const ALL: [Self; 3] = [Self::Forward, Self::BackwardQueries, Self::BackwardKeysValues];

    /// The entry point.
    pub fn entry(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardQueries => "backward_queries",
            Self::BackwardKeysValues => "backward_keys_values",
        }
    }
}

/// What a kernel is generated for, whatever its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Channels of a head, a multiple of 4.
    pub head_width: u32,
    /// Channels of a head that rotate with as many others, a multiple of 4; 0: the kernel rotates nothing.
    pub half: u32,
    /// Whether k is still to be rotated; q always is.
    pub keys: bool,
    /// Of q, k, v, o and their gradients, as stored.
    pub dtype: Dtype,
    /// Whether weights are dropped: see [`crate::ops::dropout`].
    pub dropout: bool,
}

/// The masks of dropout.
const MASKS: &str = include_str!("../../../shaders/dropout_mask.wgsl");
/// log2(e): weights are computed with exp2.
const LOG2_E: f64 = std::f64::consts::LOG2_E;

impl Form {
    /// `vec4`s of a head.
    pub fn vectors(&self) -> u32 {
        self.head_width / 4
    }

    /// `vec4`s that rotate with as many others.
    pub(crate) fn half_vectors(&self) -> u32 {
        self.half / 4
    }

    /// Factor of the scores, a literal; exact in f32 or rounded once.
    pub fn scale(&self) -> String {
        literal(1.0 / f64::from(self.head_width).sqrt())
    }

    /// The same, for weights that are computed with exp2.
    pub(crate) fn scale2(&self) -> String {
        literal(LOG2_E / f64::from(self.head_width).sqrt())
    }

    /// End of a kernel's name.
    pub fn suffix(&self) -> String {
        let rotary = match (self.half, self.keys) {
            (0, _) => String::new(),
            (half, true) => format!("-rotary{}", 2 * half),
            (half, false) => format!("-rotary{}-queries", 2 * half),
        };
        let half = if self.dtype == Dtype::F16 { "-f16" } else { "" };
        let dropout = if self.dropout { "-dropout" } else { "" };
        format!("d{}{rotary}{half}{dropout}", self.head_width)
    }

    /// Whether o is stored in f32 as well, for the backward. That subtracts <do, o> from <do, v>; where attention is even the
    /// two are nearly equal, and an o rounded to f16 made the gradients of q and k up to seven times as inexact.
    pub(crate) fn keeps_exact(&self) -> bool {
        self.dtype == Dtype::F16
    }

    /// What `pass` binds at 1, 2, ...
    pub fn bindings(&self, pass: Pass) -> &'static [Access] {
        // With dropout what draws the masks comes last.
        macro_rules! bindings {
            ($($access:ident),*) => { if self.dropout { &[$($access,)* Uniform] } else { &[$($access),*] } };
        }
        match (pass, self.half > 0) {
            (Pass::Forward, false) if self.keeps_exact() => bindings![Read, Read, Read, Uniform, Write, Write, Write],
            (Pass::Forward, true) if self.keeps_exact() => {
                bindings![Read, Read, Read, Read, Uniform, Write, Write, Write]
            }
            (Pass::Forward, false) => bindings![Read, Read, Read, Uniform, Write, Write],
            (Pass::Forward, true) => bindings![Read, Read, Read, Read, Uniform, Write, Write],
            (Pass::BackwardQueries | Pass::BackwardKeysValues, false) => {
                bindings![Read, Read, Read, Read, Read, Write, Write]
            }
            (Pass::BackwardQueries | Pass::BackwardKeysValues, true) => {
                bindings![Read, Read, Read, Read, Read, Read, Write, Write]
            }
        }
    }

    /// Header, uniform block and bindings.
    pub fn begin(&self, pass: Pass, name: &str, mapping: &str, directives: &str) -> Code {
        let mut code = Code::default();
        if self.dtype == Dtype::F16 {
            code.push("enable f16;");
        }
        code.push(directives);
        let formula = match pass {
            Pass::Forward if self.dropout => {
                "o_i = sum_j p_ij f_ij v_j, p_ij = exp(<q_i, k_j> / sqrt(D) - lse_i) for j <= i, f_ij 0 or 1 / (1 - dropout)"
            }
            Pass::BackwardQueries if self.dropout => {
                "dq_i = sum_j ds_ij k_j, ds_ij = p_ij (f_ij <do_i, v_j> - <do_i, o_i>) / sqrt(D), f_ij 0 or 1 / (1 - dropout)"
            }
            Pass::BackwardKeysValues if self.dropout => {
                "dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij f_ij do_i, f_ij 0 or 1 / (1 - dropout)"
            }
            Pass::Forward => "o_i = sum_j p_ij v_j, p_ij = exp(<q_i, k_j> / sqrt(D) - lse_i) for j <= i",
            Pass::BackwardQueries => "dq_i = sum_j ds_ij k_j, ds_ij = p_ij (<do_i, v_j> - <do_i, o_i>) / sqrt(D)",
            Pass::BackwardKeysValues => "dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij do_i",
        };
        let fields = declare(if self.dropout { Dims::FIELDS } else { &Dims::FIELDS[..WITHOUT_DROPOUT] });
        code.push(format!(
            "// Generated: {name}. Causal attention: {formula}.
            // Mapping: {mapping}
            // Order of summation: ascending, independent of tile and grid; hidden pairs add exact zeros.
            // Writes: overwrite.
            // Limits: query i of a run stands at position run.position + i (0 + i backward), keys at 0, 1, ...
            struct Dims {{
            {fields}
            }}

            struct Run {{ position: u32 }}

            const HIDDEN = -1.0e30; // the score of a key that must not be seen
            @group(0) @binding(0) var<uniform> dims: Dims;"
        ));
        let stored = format!("vec4<{}>", self.dtype.name());
        let mut binding = 0;
        let mut bind = |access: &str, name: &str, element: &str, shape: &str| {
            binding += 1;
            let ty = if access == "uniform" { element.to_owned() } else { format!("array<{element}>") };
            code.push(format!("@group(0) @binding({binding}) var<{access}> {name}: {ty}; // {shape}"));
        };
        let (read, write) = ("storage, read", "storage, read_write");
        let row = "(batch * q_rows, heads * D)";
        bind(read, "q", &stored, row);
        bind(read, "k", &stored, "(batch * kv_rows, heads * D)");
        bind(read, "v", &stored, "(batch * kv_rows, heads * D)");
        if pass == Pass::BackwardQueries {
            bind(read, "o", "vec4<f32>", row);
        }
        if pass != Pass::Forward {
            bind(read, "dout", &stored, row);
        }
        let statistics = "(batch * heads, q_rows): log2 of the sum of a row, <do, o>";
        if pass == Pass::BackwardKeysValues {
            bind(read, "stat", "vec2<f32>", statistics);
        }
        if self.half > 0 {
            bind(read, "rope", "vec4<f32>", "(positions, rotary width): cosines, then sines");
        }
        if pass == Pass::Forward {
            bind("uniform", "run", "Run", "");
            bind(write, "o", &stored, row);
            if self.keeps_exact() {
                bind(write, "exact", "vec4<f32>", "o, not rounded");
            }
        }
        if pass != Pass::BackwardKeysValues {
            bind(write, "stat", "vec2<f32>", statistics);
        }
        match pass {
            Pass::Forward => {}
            Pass::BackwardQueries => bind(write, "dq", &stored, row),
            Pass::BackwardKeysValues => {
                bind(write, "dk", &stored, row);
                bind(write, "dv", &stored, row);
            }
        }
        if self.dropout {
            bind("uniform", "draw", "DropoutDraw", "");
            code.push(MASKS);
        }
        code
    }

    /// Declares the mask of the head at hand, inside of [`item_loop`].
    pub(crate) fn mask(&self, code: &mut Code) {
        if self.dropout {
            code.push("let mask = dropout_mask(draw, dims.place, batch, item / tiles % dims.heads);");
        }
    }

    /// `weight`, multiplied by `factor` in kernels with dropout.
    pub(crate) fn dropped(&self, weight: &str, factor: &str) -> String {
        if self.dropout { format!("{weight} * {factor}") } else { weight.to_owned() }
    }

    /// Whether the kernel rotates this tensor.
    pub fn rotates(&self, tensor: &str) -> bool {
        self.half > 0 && (tensor == "q" || tensor == "k" && self.keys)
    }

    /// The readers of q and k.
    pub(crate) fn readers(&self, code: &mut Code) {
        ["q", "k"].into_iter().for_each(|name| self.reader(code, name));
    }

    /// `{name}_at(at, v, position)`: vector `v` of the head that starts at `at`, rotated as of `position`.
    fn reader(&self, code: &mut Code, name: &str) {
        let stored = format!("vec4<{}>", self.dtype.name());
        code.push(format!("\nfn {name}_at(at: u32, v: u32, position: u32) -> {stored} {{"));
        if !self.rotates(name) {
            code.push(format!("return {name}[at + v];\n}}"));
            return;
        }
        let half = self.half_vectors();
        // fma, written out: rotating in the kernel and ahead of it gives the same bits.
        code.push(format!(
            "let x = {name}[at + v];
            if (v >= {0}u) {{ return x; }}
            let first = v < {half}u;
            let other = vec4<f32>({name}[at + select(v - {half}u, v + {half}u, first)]);
            let entry = position * {0}u + select(v - {half}u, v, first);
            let by_sine = other * rope[entry + {half}u];
            return {stored}(fma(vec4<f32>(x), rope[entry], select(by_sine, -by_sine, first)));
            }}",
            2 * half
        ));
    }
}

/// A number as a literal of WGSL.
fn literal(x: f64) -> String {
    format!("{:?}", x as f32)
}

/// The loop over (batch, head, tile of `rows` own rows), its first row called `first`: the longest tiles of a head first, so
/// that none of them is left for the end, when most of a GPU has nothing to do.
/// The caller closes it.
pub(crate) fn item_loop(form: &Form, rows: u32, declare: &str, last_first: bool) -> String {
    let tile = if last_first { "tiles - 1u - item % tiles" } else { "item % tiles" };
    format!(
        "{declare}
        let tiles = (dims.q_rows + {}u) / {rows}u;
        let pitch = dims.heads * {1}u; // vectors from row to row
        for (var item = group.x; item < dims.batch * dims.heads * tiles; item += groups.x) {{
        let first = ({tile}) * {rows}u;
        let batch = item / tiles / dims.heads;
        let column = (item / tiles) % dims.heads * {1}u;
        let head_rows = item / tiles * dims.q_rows; // in stat",
        rows - 1,
        form.vectors(),
    )
}
