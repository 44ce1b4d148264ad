//! The operators: one file each (matmul and attention: a folder) with formula, builder, forward, backward, f64 reference and cases.
//!
//! [`registry`] lists every case of every op. One list serves four uses: correctness against the f64
//! reference, gradients against finite differences, speed, and `tokenformer selftest` on the user's
//! own adapter. Adding an op is one Rust file, one WGSL file and one line in the table below.

use crate::error::Result;
use crate::graph::{Class, Graph, Tensor};
use crate::kernel::Dtype;
use crate::rng::{Rng, Stream};

pub mod stats;

/// The operators: their modules, and the lists of all their cases.
macro_rules! operators {
    ($($op:ident),* $(,)?) => {
        $(pub mod $op;)*

        /// Every case of every op; within an op, the first case is the smallest.
        pub fn registry() -> Vec<Case> {
            [$($op::cases()),*].into_iter().flatten().collect()
        }

        /// Cases of more than 65 535 workgroups, the most that a dispatch may have: for tests, they take seconds each.
        pub fn large_registry() -> Vec<Case> {
            [$($op::large_cases()),*].into_iter().flatten().collect()
        }
    };
}

operators![
    matmul,
    linear,
    pattention,
    attention,
    cache,
    rotary,
    layer_norm,
    gelu,
    add,
    dropout,
    embedding,
    cross_entropy,
    leaves,
    grad_norm,
    adamw,
    average,
    muon,
];

/// Largest error of a directional derivative where activations are f16 and a case says nothing else.
pub(crate) const HALF_GRADIENT_TOLERANCE: f64 = 4e-3;

type Build = Box<dyn Fn(&mut Graph, &[Tensor]) -> Result<Vec<Tensor>> + Send + Sync>;
type Reference = Box<dyn Fn(&[Vec<f64>]) -> Vec<Vec<f64>> + Send + Sync>;

/// Values of an input.
#[derive(Debug, Clone)]
pub enum Fill {
    /// Normal values of this standard deviation.
    Normal(f64),
    /// These numbers.
    Floats(Vec<f32>),
    /// These integers.
    Words(Vec<u32>),
}

/// One input of a case.
#[derive(Debug, Clone)]
pub struct Input {
    /// Name, for messages.
    pub name: &'static str,
    /// Shape.
    pub shape: Vec<usize>,
    /// Values.
    pub fill: Fill,
    /// Whether the op is differentiable in it.
    pub gradient: bool,
    /// What it is in mixed precision.
    pub kind: Kind,
}

/// What an input of a case is in mixed precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An activation: f16, and so is its gradient.
    Activation,
    /// An activation of the residual stream: f32, its gradient f16.
    Residual,
    /// A parameter or a number: f32, and so is its gradient.
    Other,
}

impl Input {
    /// An activation of normal values; differentiable.
    pub fn normal(name: &'static str, shape: &[usize], std: f64) -> Self {
        Self { name, shape: shape.to_vec(), fill: Fill::Normal(std), gradient: true, kind: Kind::Activation }
    }

    /// An activation of the residual stream, of normal values; differentiable.
    pub(crate) fn residual(name: &'static str, shape: &[usize], std: f64) -> Self {
        Self { kind: Kind::Residual, ..Self::normal(name, shape, std) }
    }

    /// A parameter of normal values; differentiable.
    pub fn parameter(name: &'static str, shape: &[usize], std: f64) -> Self {
        Self { kind: Kind::Other, ..Self::normal(name, shape, std) }
    }

    /// Given numbers; not differentiable.
    pub fn floats(name: &'static str, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name, shape: shape.to_vec(), fill: Fill::Floats(values), gradient: false, kind: Kind::Other }
    }

    /// Given integers; not differentiable.
    pub fn words(name: &'static str, shape: &[usize], values: Vec<u32>) -> Self {
        Self { name, shape: shape.to_vec(), fill: Fill::Words(values), gradient: false, kind: Kind::Other }
    }

    /// The same input, not differentiated.
    pub(crate) fn without_gradient(self) -> Self {
        Self { gradient: false, ..self }
    }

    /// Its class in a recorded case, with or without gradients. The gradient of a parameter is f32, that of the residual
    /// stream has the precision of the graph.
    pub fn class(&self, gradient: bool, precision: Dtype) -> Class {
        let own = self.kind != Kind::Residual || precision == Dtype::F32;
        if self.gradient && gradient && own { Class::Parameter } else { Class::State }
    }

    /// The 32-bit words uploaded to the device, and their values in f64 for the reference.
    pub fn values(&self, case: &str) -> (Vec<u32>, Vec<f64>) {
        let n = self.shape.iter().product();
        match &self.fill {
            Fill::Words(words) => (words.clone(), words.iter().map(|&w| f64::from(w)).collect()),
            Fill::Floats(floats) => bits(floats),
            Fill::Normal(std) => bits(&Rng::named(7, Stream::Test, &format!("{case} {}", self.name)).normals(n, *std)),
        }
    }
}

fn bits(floats: &[f32]) -> (Vec<u32>, Vec<f64>) {
    (floats.iter().map(|x| x.to_bits()).collect(), floats.iter().map(|&x| f64::from(x)).collect())
}

/// One case of one op.
pub struct Case {
    /// Name of the op.
    pub op: &'static str,
    /// What is particular about the case.
    pub name: String,
    /// Inputs, in the order `build` and `reference` take them.
    pub inputs: Vec<Input>,
    /// Records the op; returns its outputs.
    pub build: Build,
    /// The outputs in f64.
    pub reference: Reference,
    /// Largest normalised mean square error of the outputs.
    pub nmse: f64,
    /// Largest error of a directional derivative, relative to the gradient's norm, where activations are f16.
    pub half_gradient: f64,
    /// Whether to check gradients of the differentiable inputs.
    pub gradient: bool,
    /// Whether the gradient starts from a random upstream gradient of the first output; otherwise the op
    /// computes the gradient of the sum of its first output by itself, as a loss does.
    pub seeded: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            op: "",
            name: String::new(),
            inputs: Vec::new(),
            build: Box::new(|_, _| Ok(Vec::new())),
            reference: Box::new(|_| Vec::new()),
            nmse: 1e-10,
            half_gradient: HALF_GRADIENT_TOLERANCE,
            gradient: true,
            seeded: true,
        }
    }
}

/// The cases that have activations, for checks in mixed precision; the others are f32 in any case.
pub fn mixed_registry() -> Vec<Case> {
    registry()
        .into_iter()
        .filter(|case| !["cache", "leaves", "grad_norm", "adamw", "average", "muon"].contains(&case.op))
        .collect()
}
