//! Which parameters train. Of the others no gradient is computed, and nothing that only such a gradient needs.
//!
//! Ops record their whole backward; a gradient that nothing will read goes to a tensor of its own, and
//! [`Graph::drop_unread`] then takes out every call whose results are not read. So no op needs to know.

use super::{Class, Graph, Tensor, TensorInfo, grad_name};
use crate::error::Result;
use crate::kernel::{Access, Dtype};
use std::collections::BTreeSet;

impl Graph {
    /// Lays out the gradients of what trains: by the parameter's name, the shape of its last rows that do. Parameters
    /// that are not among them do not train. Before [`Graph::backward`].
    ///
    /// # Errors
    /// Those of [`Graph::pack`].
    pub(crate) fn lay_out_gradients(&mut self, trained: &[(String, Vec<usize>)]) -> Result<()> {
        let packed = self.pack(trained, Class::Gradient, grad_name)?;
        self.laid_out = Some(packed.pieces.into_iter().map(|piece| (piece.name, piece.tensor)).collect());
        Ok(())
    }

    /// The first row of a parameter that trains; 0 where none does, or all do.
    pub(crate) fn first_trained(&self, parameter: Tensor) -> usize {
        let rows = |t: Tensor| self.shape(t).first().copied().unwrap_or(0);
        let laid_out = self.laid_out.as_ref().and_then(|known| known.get(&self.tensors[parameter.0].name));
        laid_out.map_or(0, |&grad| rows(parameter) - rows(grad))
    }

    /// Whether the gradients of parameters lie at even distances, where they are laid out: packed by themselves, they may
    /// be in two storages where the parameters are in one.
    pub(crate) fn even_laid_out(&self, parameters: &[Tensor]) -> bool {
        let Some(known) = &self.laid_out else { return true };
        let grads: Vec<Tensor> =
            parameters.iter().filter_map(|t| known.get(&self.tensors[t.0].name)).copied().collect();
        grads.is_empty() || (grads.len() == parameters.len() && self.strided(&grads).is_some())
    }

    /// Where a parameter's gradient is to go, if that was laid out: a tensor that nothing reads, where it is of no use.
    pub(super) fn laid_out_grad(&mut self, parameter: Tensor) -> Option<Tensor> {
        let known = self.laid_out.as_ref().filter(|_| self.is_parameter(parameter))?;
        let TensorInfo { name, shape, .. } = &self.tensors[parameter.0];
        if let Some(&grad) = known.get(name) {
            return Some(grad);
        }
        let (name, shape) = (grad_name(name), shape.clone());
        Some(self.statistic(&name, &shape))
    }

    /// Gives parameters that do not train evenly spaced tensors for gradients that nothing reads.
    pub(super) fn lay_out_unread<const M: usize>(&mut self, parameters: &[Tensor; M]) -> Result<()> {
        let Some(known) = &self.laid_out else { return Ok(()) };
        let of_no_use = |t: &Tensor| {
            self.is_parameter(*t) && !known.contains_key(&self.tensors[t.0].name) && !self.grads.contains_key(t)
        };
        if parameters.iter().all(of_no_use) {
            let TensorInfo { name, shape, .. } = self.tensors[parameters[0].0].clone();
            let unread = self.strided_typed::<M>(&grad_name(&name), &shape, Dtype::F32)?;
            self.grads.extend(parameters.iter().copied().zip(unread));
        }
        Ok(())
    }

    /// Drops the calls whose results nothing reads: neither the host nor a call that stays. After [`Graph::backward`]
    /// and before [`Graph::recompute`].
    pub(crate) fn drop_unread(&mut self) {
        let outlives = |t: &Tensor| self.tensors[t.0].class != Class::Activation;
        let mut read: BTreeSet<Tensor> = (0..self.tensors.len()).map(Tensor).filter(outlives).collect();
        let mut stays = vec![false; self.calls.len()];
        for (call, stays) in self.calls.iter().zip(&mut stays).rev() {
            let bound = || call.tensors.iter().map(|&t| self.storage(t));
            *stays = bound().zip(call.kernel.bindings).any(|(t, access)| *access == Access::Write && read.contains(&t));
            if *stays {
                read.extend(bound());
            }
        }
        let staying_before = |at: usize| stays.iter().take(at).filter(|stays| **stays).count();
        self.forward_end = self.forward_end.map(staying_before);
        self.layers = self.layers.iter().map(|&at| staying_before(at)).collect();
        let mut each = stays.iter();
        self.calls.retain(|_| each.next().is_none_or(|stays| *stays));
    }
}
