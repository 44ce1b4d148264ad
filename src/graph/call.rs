//! One recorded dispatch, and how it is recorded.

use super::{Graph, Tensor};
use crate::error::{Error, Result};
use crate::kernel::{Access, Kernel, ParameterBlock, ProductKind, workgroups};

/// One dispatch: a kernel, its parameter block and the tensors bound at 1, 2, ...
#[derive(Debug, Clone)]
pub struct Call {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Tensors at bindings 1, 2, ..., as [`Kernel::bindings`] says.
    pub tensors: Vec<Tensor>,
    /// The uniform block at binding 0.
    pub parameters: ParameterBlock,
    /// Workgroups along x.
    pub groups: u32,
    /// Floating-point operations, for reports (0 for what is bound by memory).
    pub flops: u64,
    /// Bytes it reads and writes at the least, for reports.
    pub bytes: u64,
    /// The layer it belongs to, from 0, forward or backward; `None` before, between and behind them.
    pub layer: Option<usize>,
    /// What kind of matrix product it is, if it is one, for tuning.
    pub product: Option<ProductKind>,
}

/// A dispatch that [`NewCall::record`] appends to a graph.
#[must_use = "nothing is recorded before `record`"]
pub struct NewCall<'g> {
    graph: &'g mut Graph,
    call: Call,
    moves: Option<u64>,
}

impl Graph {
    /// Begins one dispatch of `kernel`, in the precision of the graph: of one workgroup, until [`NewCall::groups`] says
    /// more.
    pub fn call(&mut self, kernel: &'static Kernel) -> NewCall<'_> {
        let call = Call {
            kernel: kernel.in_precision(self.precision),
            tensors: Vec::new(),
            parameters: ParameterBlock::default(),
            groups: 1,
            flops: 0,
            bytes: 0,
            layer: self.layer,
            product: None,
        };
        NewCall { graph: self, call, moves: None }
    }
}

impl NewCall<'_> {
    /// The tensors at bindings 1, 2, ...
    pub fn bind(mut self, tensors: &[Tensor]) -> Self {
        self.call.tensors = tensors.to_vec();
        self
    }

    /// The parameter block at binding 0.
    pub fn parameters(mut self, parameters: impl Into<ParameterBlock>) -> Self {
        self.call.parameters = parameters.into();
        self
    }

    /// A workgroup for each of `count` pieces of work, up to [`crate::kernel::MAX_WORKGROUPS`]: kernels stride over the rest.
    pub fn groups(mut self, count: usize) -> Self {
        self.call.groups = workgroups(count);
        self
    }

    /// Floating-point operations.
    pub fn flops(mut self, flops: u64) -> Self {
        self.call.flops = flops;
        self
    }

    /// Bytes that it reads and writes, where these are not all bytes of what it binds.
    pub(crate) fn moves(mut self, bytes: u64) -> Self {
        self.moves = Some(bytes);
        self
    }

    /// That it is a matrix product of this kind.
    pub fn product(mut self, product: ProductKind) -> Self {
        self.call.product = Some(product);
        self
    }

    /// Appends it to the graph.
    ///
    /// # Errors
    /// A defect where the tensors do not fit the bindings of the kernel, or where one is bound twice and written.
    pub fn record(self) -> Result<()> {
        let Self { graph, mut call, moves } = self;
        let (kernel, tensors) = (call.kernel, &call.tensors);
        let wrong = |what: &str| Err(Error::defect(format!("kernel {} {what}", kernel.name())));
        if tensors.len() != kernel.bindings.len() {
            return wrong("is called with the wrong number of tensors");
        }
        if tensors.iter().any(|&t| !graph.tensors[t.0].parts.is_empty()) {
            return wrong("binds a table that is in parts");
        }
        for (i, (&t, access)) in tensors.iter().zip(kernel.bindings).enumerate() {
            let rebound = tensors.iter().zip(kernel.bindings).enumerate().any(|(j, (&other, other_access))| {
                // Two views of one tensor may both be written; WebGPU refuses to read the one and write the other.
                let clash = if t == other { *access == Access::Write } else { access != other_access };
                i != j && clash && graph.storage(t) == graph.storage(other)
            });
            if rebound {
                return wrong("binds one tensor twice and writes it");
            }
        }
        call.bytes = moves.unwrap_or_else(|| graph.bytes_of(tensors));
        graph.calls.push(call);
        Ok(())
    }
}

impl Graph {
    /// Bytes of these tensors, each counted once.
    fn bytes_of(&self, tensors: &[Tensor]) -> u64 {
        let mut bound = tensors.to_vec();
        bound.sort_unstable();
        bound.dedup();
        bound.iter().fold(0, |bytes: u64, &tensor| bytes.saturating_add(self.tensors()[tensor.index()].bytes()))
    }
}
