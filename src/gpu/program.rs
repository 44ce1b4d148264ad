//! Dispatches: to prepare, and ready to be replayed as often as wanted.

use super::block::Block;
use crate::kernel::Kernel;
use std::ops::Range;

/// One dispatch to prepare.
pub(crate) struct Dispatch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Uniform block at binding 0, a multiple of 16 bytes.
    pub dims: Vec<u32>,
    /// Bindings 1, 2, ...
    pub blocks: Vec<Block>,
    /// Workgroups along x.
    pub groups: u32,
    /// About how long it takes, in floating-point operations: a byte moved counts for [`BYTE_COST`].
    pub cost: f64,
}

/// Floating-point operations in the time of a byte: what GPUs and software drivers have in common, within a factor of
/// two.
pub(crate) const BYTE_COST: f64 = 16.0;
/// The same for starting a dispatch.
const DISPATCH_COST: f64 = 5e5;

/// A dispatch ready to be replayed.
pub(super) struct Step {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bindings: wgpu::BindGroup,
    pub(super) groups: u32,
    pub(super) cost: f64,
    pub(super) kernel: Option<&'static Kernel>,
    /// As those of [`Dispatch`].
    #[cfg(test)]
    pub(super) dims: Vec<u32>,
    /// As those of [`Dispatch`]; the last one is written.
    #[cfg(test)]
    pub(super) blocks: Vec<Block>,
}

/// A list of dispatches ready to be replayed.
pub struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) uniforms: Block,
}

impl Program {
    /// Device memory of its uniform blocks.
    pub fn uniform_bytes(&self) -> u64 {
        self.uniforms.bytes
    }

    /// Dispatches of one run.
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// A program of one dispatch of `groups` workgroups along x, prepared elsewhere.
    pub(super) fn single(
        pipeline: wgpu::ComputePipeline,
        bindings: wgpu::BindGroup,
        groups: u32,
        uniforms: Block,
    ) -> Self {
        let step = Step {
            pipeline,
            bindings,
            groups,
            cost: 0.0,
            kernel: None,
            #[cfg(test)]
            dims: Vec::new(),
            #[cfg(test)]
            blocks: Vec::new(),
        };
        Self { steps: vec![step], uniforms }
    }

    /// Appends its dispatches to an open pass.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        encode(&self.steps, pass);
    }

    /// Appends some of its dispatches, as a pass.
    pub(super) fn encode_range(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        #[cfg(test)]
        let range = self.spoilt(encoder, range);
        let steps = self.steps.get(range).unwrap_or_default();
        encode(steps, &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
    }

    /// The cost of each dispatch from number `first` on, see [`Dispatch::cost`].
    pub(super) fn costs(&self, first: usize) -> impl Iterator<Item = f64> {
        self.steps.iter().skip(first).map(|step| step.cost + DISPATCH_COST)
    }

    /// Of one dispatch.
    pub(super) fn kernel_name(&self, dispatch: usize) -> String {
        let kernel = self.steps.get(dispatch).and_then(|step| step.kernel);
        kernel.map_or_else(|| "a kernel".to_owned(), Kernel::name)
    }
}

/// A word that is written into the output of a dispatch right after it ran.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct Spoil {
    /// Number of the dispatch, modulo those of the program.
    pub(crate) dispatch: usize,
    /// Number of the word, modulo those of the output.
    pub(crate) at: u64,
    /// Holds the word.
    pub(crate) word: Block,
}

#[cfg(test)]
thread_local! {
    /// For the next program that this thread encodes.
    static SPOIL: std::cell::RefCell<Option<Spoil>> = const { std::cell::RefCell::new(None) };
}

#[cfg(test)]
impl Spoil {
    /// Does it to the next program that this thread encodes.
    pub(crate) fn next(self) {
        SPOIL.set(Some(self));
    }
}

#[cfg(test)]
impl Program {
    /// Encodes up to the dispatch that is to be spoilt, if it is in `range`, and spoils it; what is left.
    fn spoilt(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) -> Range<usize> {
        let Some(spoil) = SPOIL.take() else { return range };
        let dispatch = spoil.dispatch % self.steps.len();
        if !range.contains(&dispatch) {
            SPOIL.set(Some(spoil));
            return range;
        }
        encode(
            &self.steps[range.start..=dispatch],
            &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
        );
        let (from, from_offset) = spoil.word.place();
        let output = self.steps[dispatch].blocks.last().unwrap();
        let (to, offset) = output.place();
        encoder.copy_buffer_to_buffer(from, from_offset, to, offset + 4 * (spoil.at % (output.bytes() / 4)), 4);
        dispatch + 1..range.end
    }
}

fn encode(steps: &[Step], pass: &mut wgpu::ComputePass<'_>) {
    for step in steps {
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, &step.bindings, &[]);
        pass.dispatch_workgroups(step.groups, 1, 1);
    }
}
