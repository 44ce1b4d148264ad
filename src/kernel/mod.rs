//! Kernels as data, without a GPU: which shader file, which entry point, what is bound where ([`Kernel`], [`Parameters`]);
//! what a device can do ([`Target`]); which kernel computes which matrix product there ([`Candidate`], [`KernelTable`]).
//!
//! A kernel does not know a shape. Shapes, offsets and flags reach it in a small uniform block, its [`Parameters`], at
//! binding 0, so one compiled pipeline serves every layer, every batch size and most sizes a model grows to. (A growth
//! changes every shape: with shapes as `override` constants every kernel would be compiled again.)

mod attention_schedule;
mod candidate;
mod defaults;
mod dtype;
mod fragments;
mod names;
mod parameters;
mod product;
pub mod shader;
mod table;
mod target;

pub use attention_schedule::AttentionSchedule;
pub use candidate::Candidate;
pub use dtype::Dtype;
pub use fragments::{Fragment, Fragments};
pub(crate) use fragments::{Staging, Tile};
pub use parameters::{Field, FieldType, FieldValue, ParameterBlock, Parameters, word};
pub(crate) use parameters::{declare, parameter_block};
pub(crate) use product::MAX_SUM;
pub use product::{Layout, ProductKind, ShapeClass};
pub use table::KernelTable;
pub use target::Target;

use shader::Rows;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How a kernel uses one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`: the kernel overwrites or updates it.
    Write,
    /// `var<uniform>`: scalars that change from run to run.
    Uniform,
}

/// One entry point of one shader: a file, or generated text.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// File in `shaders/`, or the name of the generated text.
    pub file: &'static str,
    /// Entry point in that file.
    pub entry: &'static str,
    /// What bindings 1, 2, ... are; binding 0 is always its [`Parameters`].
    pub bindings: &'static [Access],
    /// Values for the shader's boolean `override` constants.
    pub flags: &'static [(&'static str, bool)],
    /// The shader itself, where it is generated; its name in `file` tells it from all others.
    pub text: Option<&'static str>,
    /// What `Real`, the type of activations, is in the file.
    pub real: Dtype,
    /// How it reads and writes rows, where the file leaves that open.
    pub rows: Rows,
}

/// By name: two kernels of one name are equal.
impl std::hash::Hash for Kernel {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.file, self.entry, self.flags, self.real, self.rows).hash(state);
    }
}

impl Kernel {
    /// A kernel without `override` constants.
    pub const fn new(file: &'static str, entry: &'static str, bindings: &'static [Access]) -> Self {
        Self { file, entry, bindings, flags: &[], text: None, real: Dtype::F32, rows: Rows::Scalar }
    }

    /// The same kernel with values for its `override` constants.
    pub const fn with(self, flags: &'static [(&'static str, bool)]) -> Self {
        Self { flags, ..self }
    }

    /// The kernel called `name`, entry point `product`, its text made by `generate` the first time. Kept for the life of the program:
    /// there are as many as there are distinct kernels, some dozens.
    pub fn generated(name: &str, bindings: &'static [Access], generate: impl FnOnce() -> String) -> &'static Self {
        Self::generated_as(name, "product", bindings, generate)
    }

    /// As [`Kernel::generated`], with an entry point of another name.
    pub fn generated_as(
        name: &str,
        entry: &'static str,
        bindings: &'static [Access],
        generate: impl FnOnce() -> String,
    ) -> &'static Self {
        static KNOWN: Mutex<BTreeMap<String, &'static Kernel>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = known.get(name) {
            return kernel;
        }
        let text: &'static str = Box::leak(generate().into_boxed_str());
        let file: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let kernel: &'static Self = Box::leak(Box::new(Self { text: Some(text), ..Self::new(file, entry, bindings) }));
        known.insert(name.to_owned(), kernel);
        kernel
    }

    /// The same kernel with activations of another type. A generated kernel has its types in its text.
    pub fn in_precision(&'static self, real: Dtype) -> &'static Self {
        if self.text.is_some() || !shader::is_generic(self.file) {
            return self;
        }
        self.variant(real, self.rows)
    }

    /// The same kernel for rows of `width` elements, one after the other in memory.
    pub(crate) fn for_width(&'static self, width: usize) -> &'static Self {
        self.variant(self.real, Rows::of_width(width))
    }

    fn variant(&'static self, real: Dtype, rows: Rows) -> &'static Self {
        if (self.real, self.rows) == (real, rows) {
            return self;
        }
        static KNOWN: Mutex<BTreeMap<(usize, Dtype, Rows), &'static Kernel>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let Self { file, entry, bindings, flags, text, .. } = *self;
        // By address: kernels are statics.
        known
            .entry((std::ptr::from_ref(self).addr(), real, rows))
            .or_insert_with(|| Box::leak(Box::new(Self { file, entry, bindings, flags, text, real, rows })))
    }

    /// `file:entry`, for messages and labels.
    pub fn name(&self) -> String {
        if self.text.is_some() {
            return self.file.to_owned();
        }
        let half = if self.real == Dtype::F16 { ":f16" } else { "" };
        let rows = if self.rows == Rows::Vec4 { ":vec4" } else { "" };
        format!("{}:{}{rows}{half}", self.file.trim_end_matches(".wgsl"), self.entry)
    }
}

/// End of the names of kernels that cost the device when they are compiled: some drivers know such.
#[cfg(test)]
pub(crate) const COSTS_DEVICE: &str = "-costs-device";

/// Most workgroups dispatched in one dimension. Kernels stride over the rest (`row += groups.x`),
/// so no grid is ever folded into two dimensions.
pub(crate) const MAX_WORKGROUPS: u32 = 65_535;

/// Workgroups for `count` pieces of work.
pub fn workgroups(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(MAX_WORKGROUPS).clamp(1, MAX_WORKGROUPS)
}
