//! Recording: model code runs once and leaves a list of kernel calls.
//!
//! Each op appends its forward calls and pushes its backward on a tape; [`Graph::backward`] walks
//! the tape in reverse and every op appends its gradient calls to the same list. What comes out is
//! plain data: tensors with shapes, and calls in order. [`plan`] turns it into buffers and
//! dispatches. Nothing here touches a GPU.

mod average;
mod call;
mod elementwise;
pub(crate) mod pack;
pub mod plan;
mod precision;
mod recompute;
pub(crate) mod table;
mod trained;
pub mod view;

use crate::error::{Error, Result};
use crate::kernel::{Dtype, KernelTable};
pub(crate) use average::average_name;
pub use call::{Call, NewCall};
pub use elementwise::ElementwiseDims;
use std::collections::{HashMap, HashSet};
use view::View;

/// Handle of a tensor in one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(usize);

impl Tensor {
    /// Position in [`Graph::tensors`].
    pub fn index(self) -> usize {
        self.0
    }

    /// The tensor at a position of [`Graph::tensors`].
    pub(crate) fn from_index(index: usize) -> Self {
        Self(index)
    }
}

/// What a tensor is for; decides who owns its memory and how it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Learnable; lives as long as the model.
    Parameter,
    /// Accumulated gradient of a parameter.
    Gradient,
    /// Optimizer moment of a parameter.
    Moment,
    /// Moving average of a parameter.
    Average,
    /// Written by the host (tokens, tables, scalars), or read by it (statistics), or kept between
    /// runs (key/value cache).
    State,
    /// Lives within one run of the plan; shares memory with others that live at other times.
    Activation,
}

/// Name, shape, element type and class of a tensor.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Unique among tensors that outlive a plan; a label otherwise.
    pub name: String,
    /// Extent of each axis, row-major.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
    /// Purpose.
    pub class: Class,
    /// The range it is of another tensor, where it has no memory of its own.
    pub view: Option<View>,
    /// The tensors of its rows, where it is larger than a binding: it has no memory itself then, and is never bound.
    pub parts: Vec<Tensor>,
}

impl TensorInfo {
    /// The tensor that owns its memory; `own` is its own handle.
    pub(crate) fn storage_or(&self, own: Tensor) -> Tensor {
        self.view.map_or(own, |view| view.storage)
    }

    /// Number of elements; `None` where the product overflows.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))
    }

    /// Byte offset in its storage.
    pub(crate) fn byte_offset(&self) -> u64 {
        self.view.map_or(0, |view| view.offset as u64 * self.dtype.bytes())
    }

    /// Size in bytes, saturating.
    pub fn bytes(&self) -> u64 {
        self.elements().map_or(u64::MAX, |n| (n as u64).saturating_mul(self.dtype.bytes()))
    }
}

type Backward = Box<dyn FnOnce(&mut Graph) -> Result<()>>;

/// A recorded computation.
///
/// ```
/// use tokenformer::graph::{Graph, plan::Plan};
/// use tokenformer::kernel::{KernelTable, Target};
/// use tokenformer::ops::gelu::gelu;
///
/// // For any WebGPU device; `runtime::device::Device` has the table of one that is there.
/// let mut graph = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
/// let x = graph.state("x", &[128, 64]);
/// let y = gelu(&mut graph, x, false)?;
/// assert_eq!(graph.shape(y), [128, 64]);
/// assert_eq!(Plan::new(&graph)?.calls.len(), 1);
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
pub struct Graph {
    tensors: Vec<TensorInfo>,
    calls: Vec<Call>,
    /// What appends the gradient calls of each op, and the op's layer.
    tape: Vec<(Option<usize>, Backward)>,
    grads: HashMap<Tensor, Tensor>,
    /// Of storages: the tensor whose views are the gradients of their views.
    storage_grads: HashMap<Tensor, Tensor>,
    /// First call of the backward pass; what lives across it is a saved activation.
    forward_end: Option<usize>,
    training: bool,
    precision: Dtype,
    /// Copies of parameters in another precision.
    weights: HashMap<Tensor, Tensor>,
    /// Whether those copies outlive the run.
    keeps_weights: bool,
    /// Whether the first gradient of a parameter overwrites what is there.
    overwrites: bool,
    /// First call of each layer, and one past the last layer.
    layers: Vec<usize>,
    /// The layer being recorded.
    layer: Option<usize>,
    /// Gradients of the parameters that train, by the parameter's name; `None`: of each as it is met.
    laid_out: Option<HashMap<String, Tensor>>,
    kernels: KernelTable,
}

impl Graph {
    /// A graph that only computes values.
    pub fn forward_only(kernels: &KernelTable) -> Self {
        Self {
            tensors: Vec::new(),
            calls: Vec::new(),
            tape: Vec::new(),
            grads: HashMap::new(),
            storage_grads: HashMap::new(),
            forward_end: None,
            training: false,
            precision: Dtype::F32,
            weights: HashMap::new(),
            keeps_weights: false,
            overwrites: false,
            layers: Vec::new(),
            layer: None,
            laid_out: None,
            kernels: kernels.clone(),
        }
    }

    /// A graph that will be differentiated by [`Graph::backward`].
    pub fn training(kernels: &KernelTable) -> Self {
        Self { training: true, ..Self::forward_only(kernels) }
    }

    /// Which kernels to record.
    pub fn kernels(&self) -> &KernelTable {
        &self.kernels
    }

    /// Whether the plan is for a GPU, not for a driver that runs on the CPU: which schedule ops record.
    pub(crate) fn on_gpu(&self) -> bool {
        !self.kernels.target().software
    }

    /// Records the first micro-batch of an optimizer step, whose gradients take the place of those of the step before:
    /// nothing needs to be cleared, nor is what was cleared read. Before [`Graph::backward`].
    pub(crate) fn overwrite_gradients(&mut self) {
        self.overwrites = true;
    }

    /// Whether ops should save what their backward needs.
    pub(crate) fn is_training(&self) -> bool {
        self.training
    }

    /// Adds a tensor of any class.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize], class: Class) -> Tensor {
        self.typed(name, shape, Dtype::F32, class)
    }

    /// As [`Graph::tensor`], of any element type.
    pub fn typed(&mut self, name: impl Into<String>, shape: &[usize], dtype: Dtype, class: Class) -> Tensor {
        self.tensors.push(TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            dtype,
            class,
            view: None,
            parts: Vec::new(),
        });
        Tensor(self.tensors.len() - 1)
    }

    /// Adds a parameter, known to every plan under the same name.
    pub fn parameter(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.tensor(name, shape, Class::Parameter)
    }

    /// Adds a tensor that the host writes or reads, or that is kept between runs.
    pub fn state(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.tensor(name, shape, Class::State)
    }

    /// Adds a tensor that lives within one run, in the precision of the graph.
    pub fn activation(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.typed(name, shape, self.precision, Class::Activation)
    }

    /// Adds an activation of the residual stream, which is f32 in every precision: every layer adds to it, and rounding
    /// it each time to f16 made up most of what mixed precision lost. Its gradient has the precision of the graph.
    pub(crate) fn residual(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.tensor(name, shape, Class::Activation)
    }

    /// Adds a tensor that lives within one run and is f32 in every precision: statistics and partial sums.
    pub fn statistic(&mut self, name: &str, shape: &[usize]) -> Tensor {
        self.tensor(name, shape, Class::Activation)
    }

    /// Whether a tensor is a parameter.
    pub(crate) fn is_parameter(&self, tensor: Tensor) -> bool {
        self.tensors[tensor.0].class == Class::Parameter
    }

    /// Keeps an activation after the run under a name of its own, for the host to read.
    pub fn keep(&mut self, tensor: Tensor, name: &str) {
        self.tensors[tensor.0].class = Class::State;
        self.tensors[tensor.0].name = name.to_string();
    }

    /// The tensor called `name`; for parameters, whose names are unique in a graph.
    pub fn find(&self, name: &str) -> Result<Tensor> {
        let found = self.tensors.iter().position(|t| t.name == name);
        found.map(Tensor).ok_or_else(|| Error::defect(format!("no tensor \"{name}\" was recorded")))
    }

    /// Shape of a tensor.
    pub fn shape(&self, tensor: Tensor) -> &[usize] {
        &self.tensors[tensor.0].shape
    }

    /// Rows (first axis) and columns of a matrix; an error names the tensor if it is not one.
    pub fn matrix(&self, tensor: Tensor) -> Result<(usize, usize)> {
        match self.shape(tensor) {
            &[rows, columns] => Ok((rows, columns)),
            shape => Err(Error::usage(format!(
                "tensor \"{}\" has shape {shape:?} where a matrix [rows, columns] is needed",
                self.tensors[tensor.0].name
            ))),
        }
    }

    /// All tensors, by [`Tensor::index`].
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// All calls, in the order they run.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Index of the first call of the backward pass, if there is one.
    pub(crate) fn forward_end(&self) -> Option<usize> {
        self.forward_end
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.calls.iter().map(|c| c.flops).sum()
    }

    /// Pushes the backward of what was just recorded. It runs (records) during [`Graph::backward`].
    pub fn on_backward(&mut self, record: impl FnOnce(&mut Graph) -> Result<()> + 'static) {
        if self.training {
            self.tape.push((self.layer, Box::new(record)));
        }
    }

    /// The gradient that arrived for `tensor`, an activation; read-only for the op that takes it
    /// unless the op produced `tensor` in place.
    pub fn take_grad(&mut self, tensor: Tensor) -> Result<Tensor> {
        self.grads
            .remove(&tensor)
            .ok_or_else(|| Error::defect(format!("no gradient reaches tensor \"{}\"", self.tensors[tensor.0].name)))
    }

    /// As [`Graph::take_grad`], for an op that changes the gradient in place.
    pub(crate) fn take_grad_owned(&mut self, tensor: Tensor) -> Result<Tensor> {
        let grad = self.take_grad(tensor)?;
        let owned = self.unshared(tensor, grad)?;
        self.grads.remove(&tensor);
        Ok(owned)
    }

    /// Where to put a gradient of `tensor`, and whether to add to what is already there.
    ///
    /// Gradients of parameters are summed over the micro-batches of an optimizer step: the first of a run is added to what
    /// is there, or overwrites it after [`Graph::overwrite_gradients`]. The first gradient of an activation overwrites.
    pub fn grad_target(&mut self, tensor: Tensor) -> Result<(Tensor, bool)> {
        if let Some(&grad) = self.grads.get(&tensor) {
            return Ok((self.unshared(tensor, grad)?, true));
        }
        let (parameter, view) = (self.is_parameter(tensor), self.tensors[tensor.0].view);
        let grad = if let Some(grad) = self.laid_out_grad(tensor) {
            grad
        } else if let Some(View { storage, offset }) = view {
            let known = self.storage_grads.get(&storage).copied();
            let storage_grad = known.unwrap_or_else(|| self.new_grad(storage));
            self.storage_grads.insert(storage, storage_grad);
            let TensorInfo { name, shape, .. } = self.tensors[tensor.0].clone();
            self.view(storage_grad, offset, grad_name(&name), &shape)?
        } else {
            self.new_grad(tensor)
        };
        self.grads.insert(tensor, grad);
        Ok((grad, parameter && !self.overwrites))
    }

    /// A tensor for the gradient of one that is no view.
    fn new_grad(&mut self, tensor: Tensor) -> Tensor {
        let TensorInfo { name, shape, dtype, class, .. } = self.tensors[tensor.0].clone();
        let (dtype, class) = match class {
            Class::Parameter => (dtype, Class::Gradient),
            _ => (self.precision, Class::Activation),
        };
        self.typed(grad_name(&name), &shape, dtype, class)
    }

    /// Declares that `grad` already holds a gradient of `tensor`: computed with the forward, given
    /// from outside, or passed through unchanged by an addition.
    pub fn set_grad(&mut self, tensor: Tensor, grad: Tensor) {
        self.grads.insert(tensor, grad);
    }

    /// The gradient recorded for `tensor` so far.
    pub fn grad(&self, tensor: Tensor) -> Option<Tensor> {
        self.grads.get(&tensor).or_else(|| self.storage_grads.get(&tensor)).copied()
    }

    /// `grad`, or a copy of it if another tensor still waits to read the same gradient.
    fn unshared(&mut self, tensor: Tensor, grad: Tensor) -> Result<Tensor> {
        if !self.grads.iter().any(|(&t, &g)| t != tensor && g == grad) {
            return Ok(grad);
        }
        let info = self.tensors[grad.0].clone();
        let copy = self.typed(&info.name, &info.shape, info.dtype, Class::Activation);
        self.copy(grad, copy)?;
        self.grads.insert(tensor, copy);
        Ok(copy)
    }

    /// Walks the tape in reverse; every op appends its gradient calls.
    ///
    /// # Errors
    /// A parameter that no gradient reached is an error: it would silently stay as it was.
    pub fn backward(&mut self) -> Result<()> {
        self.forward_end = Some(self.calls.len());
        while let Some((layer, record)) = self.tape.pop() {
            self.layer = layer;
            record(self)?;
        }
        self.layer = None;
        let storages: HashSet<Tensor> = self.tensors.iter().filter_map(|t| Some(t.view?.storage)).collect();
        for (i, info) in self.tensors.iter().enumerate() {
            let learns = info.class == Class::Parameter && info.parts.is_empty() && !storages.contains(&Tensor(i));
            if learns && self.grad(Tensor(i)).is_none() {
                return Err(Error::defect(format!(
                    "parameter \"{}\" gets no gradient: it takes no part in the loss",
                    info.name
                )));
            }
        }
        Ok(())
    }
}

/// Name of a parameter's gradient in device memory.
pub fn grad_name(parameter: &str) -> String {
    format!("grad:{parameter}")
}

/// Names of a parameter's first and second moment in device memory.
pub(crate) fn moment_names(parameter: &str) -> (String, String) {
    (format!("m:{parameter}"), format!("v:{parameter}"))
}
