//! Copies of tensors and conversions between precisions: what a graph records of its own accord.

use super::{Graph, Tensor};
use crate::error::Result;
use crate::kernel::Access::{Read, Write};
use crate::kernel::{Kernel, parameter_block, word};

static COPY: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Read, Write]);
static CONVERT: Kernel = Kernel::new("elementwise.wgsl", "convert", &[Read, Write]);
static CONVERT_BACK: Kernel = Kernel::new("elementwise.wgsl", "convert_back", &[Read, Write]);

parameter_block! {
    /// The parameter block of `shaders/elementwise.wgsl`.
    pub struct ElementwiseDims {
        /// Elements; rows of `row_dots`.
        n: u32,
        /// Whether GELU is its tanh approximation.
        use_tanh: u32,
        /// Whether the gradient of GELU is added to what is there.
        accumulate: u32,
        /// Columns of `row_dots`.
        columns: u32,
    }
}

impl ElementwiseDims {
    /// Of kernels that take nothing but a number of elements.
    pub fn of(n: usize) -> Self {
        Self { n: word(n), use_tanh: 0, accumulate: 0, columns: 0 }
    }
}

impl Graph {
    /// Records a copy of `from` into `to`, of the same length and type.
    pub(super) fn copy(&mut self, from: Tensor, to: Tensor) -> Result<()> {
        self.elementwise(&COPY, from, to)
    }

    /// Records the conversion of `from` (f32) into `to`, of the same length.
    pub fn cast(&mut self, from: Tensor, to: Tensor) -> Result<()> {
        self.elementwise(&CONVERT, from, to)
    }

    /// Adds `from`, in the precision of the graph, to `to` (f32), of the same length.
    pub fn cast_back(&mut self, from: Tensor, to: Tensor) -> Result<()> {
        self.elementwise(&CONVERT_BACK, from, to)
    }

    fn elementwise(&mut self, kernel: &'static Kernel, from: Tensor, to: Tensor) -> Result<()> {
        let elements = self.tensors()[from.index()].elements().unwrap_or(0);
        let call = self.call(kernel).bind(&[from, to]).parameters(ElementwiseDims::of(elements));
        call.groups(elements.div_ceil(256)).record()
    }
}
