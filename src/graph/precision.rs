//! The precision of activations, and copies of parameters in it.
//!
//! Parameters and their gradients are f32 whatever it is; products read copies of parameters.

use super::view::View;
use super::{Class, Graph, Tensor, TensorInfo};
use crate::error::Result;
use crate::kernel::Dtype;

impl Graph {
    /// Records activations in `precision` from here on. With f16 the kernels still compute in f32, and parameters
    /// and their gradients stay f32: products read a copy, see [`Graph::weight`].
    pub fn set_precision(&mut self, precision: Dtype) {
        self.precision = precision;
    }

    /// Takes copies of parameters to be there when the run starts, see [`Graph::weight_copy`], and makes none.
    pub fn keep_weights(&mut self) {
        self.keeps_weights = true;
    }

    /// The copy of a parameter in the precision of the graph that lives as long as the parameter, and that whoever changes
    /// the parameter changes too.
    pub fn weight_copy(&mut self, parameter: Tensor) -> Tensor {
        let TensorInfo { name, shape, .. } = self.tensors[parameter.0].clone();
        self.typed(copy_name(&name), &shape, self.precision, Class::State)
    }

    /// A parameter as products should read it: itself, or its copy in the precision of the graph: the one that is kept, or
    /// one made at its first use.
    pub fn weight(&mut self, parameter: Tensor) -> Result<Tensor> {
        if self.dtype(parameter) == self.precision {
            return Ok(parameter);
        }
        if let Some(&copy) = self.weights.get(&parameter) {
            return Ok(copy);
        }
        let TensorInfo { name, shape, view, .. } = self.tensors[parameter.0].clone();
        let name = copy_name(&name);
        let copy = if let Some(View { storage, offset }) = view {
            let storage_copy = self.weight(storage)?;
            self.view(storage_copy, offset, name, &shape)?
        } else {
            let kept = self.keeps_weights;
            let copy = if kept { self.weight_copy(parameter) } else { self.activation(&name, &shape) };
            if !kept {
                self.cast(parameter, copy)?;
            }
            copy
        };
        self.weights.insert(parameter, copy);
        Ok(copy)
    }

    /// Element type of a tensor.
    pub fn dtype(&self, tensor: Tensor) -> Dtype {
        self.tensors[tensor.0].dtype
    }
}

/// Name of the copy of a parameter.
fn copy_name(parameter: &str) -> String {
    format!("half:{parameter}")
}
