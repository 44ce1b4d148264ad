//! Sums of products whose sum over k was cut: parts are added up in ascending order.
//!
//! Parts are f32 whatever C is, so that a C of f16 is rounded once.

use super::Product;
use super::source::Code;
use crate::error::Result;
use crate::graph::view::Strided;
use crate::graph::{Graph, Tensor};
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Dtype, Kernel, Parameters, declare, parameter_block, word};

parameter_block! {
    /// The parameter block of the generated kernels that add up parts.
    pub(crate) struct Dims {
        /// elements of one C
        n: u32,
        parts: u32,
        c_offset: u32,
        accumulate: u32,
        /// products; the parts of one lie one after the other, then those of the next
        batch: u32,
        /// from C to C
        c_batch: u32,
        /// from so many products on, C lies elsewhere
        half: u32,
        /// there
        c_second: u32,
    }
}

/// Invocations of a workgroup.
const LANES: usize = 64;

/// The kernel that adds up parts into a C of type `dtype`; `vectors`: four elements at a time.
pub fn kernel(dtype: Dtype, vectors: bool) -> &'static Kernel {
    let name =
        format!("sum-parts{}{}", if dtype == Dtype::F16 { "-h" } else { "" }, if vectors { "-vec4" } else { "" });
    Kernel::generated(&name, &[Read, Write], || generate(&name, dtype, vectors))
}

fn generate(name: &str, dtype: Dtype, vectors: bool) -> String {
    let stored = dtype.name();
    let [sum, c] = ["f32", stored].map(|one| if vectors { format!("vec4<{one}>") } else { one.to_owned() });
    let per = if vectors { 4 } else { 1 };
    let fields = declare(Dims::FIELDS);
    let mut code = Code::default();
    if dtype == Dtype::F16 {
        code.push("enable f16;");
    }
    code.push(format!(
        "// Generated: {name}. C = or += the sum of its parts.
        // Order of summation: C where it is added to, then parts ascending.
        // Mapping: one invocation {per} elements of C; neighbours read neighbours.
        struct Dims {{
        {fields}
        }}

        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read> parts: array<{sum}>; // (batch, parts, n)
        @group(0) @binding(2) var<storage, read_write> c: array<{c}>; // (n) each

        @compute @workgroup_size({LANES})
        fn product(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
        let length = dims.n / {per}u;
        for (var e = id.x; e < length * dims.batch; e += groups.x * {LANES}u) {{
        let z = e / length;
        let inner = e % length;
        let c_first = select(dims.c_offset + z * dims.c_batch, dims.c_second + (z - dims.half) * dims.c_batch, z >= dims.half);
        let at = c_first / {per}u + inner;
        var sum = {sum}();
        if (dims.accumulate == 1u) {{
        sum = {sum}(c[at]);
        }}
        for (var p = 0u; p < dims.parts; p++) {{
        sum += parts[(z * dims.parts + p) * length + inner];
        }}
        c[at] = {c}(sum);
        }}
        }}"
    ));
    code.finish()
}

impl Product {
    /// Records the sum of the parts of every C of the batch; `second` is where those of its second half start.
    pub(super) fn sum_parts(
        &self,
        g: &mut Graph,
        partial: Tensor,
        parts: usize,
        c: Strided,
        second: Option<usize>,
    ) -> Result<()> {
        let ([m, n, _], count) = (self.size, self.count);
        let dtype = g.dtype(c.storage);
        let (half, second) = second.map_or((count, 0), |second| (count / 2, second));
        let vectors = [m * n, c.offset, c.stride, second].iter().all(|n| n.is_multiple_of(4));
        let dims = Dims {
            n: word(m * n),
            parts: word(parts),
            c_offset: word(c.offset),
            accumulate: u32::from(self.accumulate),
            batch: word(count),
            c_batch: word(c.stride),
            half: word(half),
            c_second: word(second),
        };
        let invocations = (m * n * count).div_ceil(if vectors { 4 } else { 1 });
        let passes = if self.accumulate { 2 } else { 1 };
        g.call(kernel(dtype, vectors))
            .bind(&[partial, c.storage])
            .parameters(dims)
            .groups(invocations.div_ceil(LANES))
            .moves((m * n * count) as u64 * (4 * parts as u64 + passes * dtype.bytes()))
            .record()
    }
}
