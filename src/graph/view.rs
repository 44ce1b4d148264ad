//! Views: tensors that are ranges of another one, their *storage*.
//!
//! Tensors of one shape at even distances in one storage are [`Strided`]: the operands of one batched product. Lifetimes and
//! memory are the storage's; a view is only a way to bind a range of it.

use super::{Class, Graph, Tensor, TensorInfo};
use crate::error::{Error, Result};
use crate::kernel::Dtype;

/// Views start at multiples of this many elements. Bindings start at multiples of 256 bytes on every device, which
/// are so many elements of f16.
pub(super) const ALIGN: usize = 128;

/// Which range of which tensor a view is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The tensor that owns the memory; no view itself.
    pub storage: Tensor,
    /// First element.
    pub offset: usize,
}

/// Tensors of one shape at even distances in one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    /// What to bind.
    pub storage: Tensor,
    /// First element of the first.
    pub offset: usize,
    /// Elements from one to the next; 0 where all are the same.
    pub stride: usize,
}

impl Strided {
    /// The tensor `i` of them alone.
    pub fn at(self, i: usize) -> Self {
        Self { offset: self.offset + i * self.stride, stride: 0, ..self }
    }
}

impl From<Tensor> for Strided {
    /// One tensor, shared by all products of a batch.
    fn from(storage: Tensor) -> Self {
        Self { storage, offset: 0, stride: 0 }
    }
}

impl Graph {
    /// A range of `storage` as a tensor of its own, from element `offset` on.
    ///
    /// # Errors
    /// A range that is not inside or not aligned is a defect.
    pub fn view(&mut self, storage: Tensor, offset: usize, name: impl Into<String>, shape: &[usize]) -> Result<Tensor> {
        let TensorInfo { class, dtype, view, .. } = self.tensors[storage.0].clone();
        let (name, elements) = (name.into(), shape.iter().product::<usize>());
        let inside = self.tensors[storage.0].elements().is_some_and(|n| offset + elements <= n);
        if view.is_some() || !offset.is_multiple_of(ALIGN) || !inside {
            return Err(Error::defect(format!(
                "\"{name}\" cannot be {shape:?} of \"{}\" from element {offset} on",
                self.tensors[storage.0].name
            )));
        }
        let view = Some(View { storage, offset });
        self.tensors.push(TensorInfo { name, shape: shape.to_vec(), dtype, class, view, parts: Vec::new() });
        Ok(Tensor(self.tensors.len() - 1))
    }

    /// The tensor that owns the memory of `tensor`: itself, or its storage.
    pub fn storage(&self, tensor: Tensor) -> Tensor {
        self.tensors[tensor.0].storage_or(tensor)
    }

    /// Which range of which tensor `tensor` is, if it is one.
    pub(crate) fn view_of(&self, tensor: Tensor) -> Option<View> {
        self.tensors[tensor.0].view
    }

    /// The same, of the tensor that owns the memory.
    pub(crate) fn in_storage(&self, operand: Strided) -> Strided {
        let view = self.view_of(operand.storage);
        view.map_or(operand, |View { storage, offset }| Strided { storage, offset: operand.offset + offset, ..operand })
    }

    /// `M` activations of one shape, evenly spaced in one storage.
    pub(crate) fn strided_activations<const M: usize>(&mut self, name: &str, shape: &[usize]) -> Result<[Tensor; M]> {
        self.strided_typed(name, shape, self.precision)
    }

    /// As [`Graph::strided_activations`], of any element type.
    pub(super) fn strided_typed<const M: usize>(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<[Tensor; M]> {
        if M == 1 {
            return Ok([self.typed(name, shape, dtype, Class::Activation); M]);
        }
        let stride = shape.iter().product::<usize>().next_multiple_of(ALIGN);
        let storage = self.typed(name, &[M * stride], dtype, Class::Activation);
        let mut views = [storage; M];
        for (i, view) in views.iter_mut().enumerate() {
            *view = self.view(storage, i * stride, name, shape)?;
        }
        Ok(views)
    }

    /// How `tensors`, which are of one shape, lie in one storage; `None` where they do not.
    pub(crate) fn strided(&self, tensors: &[Tensor]) -> Option<Strided> {
        let (&first, others) = tensors.split_first()?;
        if others.is_empty() {
            return Some(first.into());
        }
        let view = |t: Tensor| self.tensors[t.0].view;
        let start = view(first)?;
        let stride = view(others[0])?.offset.checked_sub(start.offset)?;
        let in_place = others.iter().enumerate().all(|(i, &t)| {
            view(t) == Some(View { storage: start.storage, offset: start.offset + (i + 1) * stride })
                && self.shape(t) == self.shape(first)
        });
        in_place.then_some(Strided { storage: start.storage, offset: start.offset, stride })
    }

    /// [`Graph::strided`], of copies where `tensors` lie elsewhere.
    pub(crate) fn strided_or_copied<const M: usize>(&mut self, tensors: &[Tensor; M]) -> Result<Strided> {
        if let Some(even) = self.strided(tensors) {
            return Ok(even);
        }
        let shape = tensors.first().map_or(Vec::new(), |&t| self.shape(t).to_vec());
        let copies = self.strided_activations::<M>("gathered", &shape)?;
        for (&from, &to) in tensors.iter().zip(&copies) {
            self.copy(from, to)?;
        }
        self.strided(&copies).ok_or_else(uneven)
    }

    /// As [`Graph::grad_target`] for the gradients of tensors that are [`Strided`] themselves.
    pub(crate) fn strided_grads<const M: usize>(&mut self, tensors: &[Tensor; M]) -> Result<(Strided, bool)> {
        self.lay_out_unread(tensors)?;
        let (mut grads, mut accumulate) = (*tensors, [false; M]);
        for (i, &tensor) in tensors.iter().enumerate() {
            (grads[i], accumulate[i]) = self.grad_target(tensor)?;
        }
        let alike = accumulate.iter().all(|&add| add == accumulate[0]);
        self.strided(&grads).filter(|_| alike).map(|even| (even, accumulate[0])).ok_or_else(uneven)
    }
}

fn uneven() -> Error {
    Error::defect("tensors that do not lie alike in memory cannot be one batch")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelTable, Target};

    #[test]
    fn even_distances_are_found_and_others_copied() {
        let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
        let packed = g
            .pack(&(0..6).map(|i| (format!("p{i}"), vec![130])).collect::<Vec<_>>(), Class::Parameter, str::to_owned)
            .unwrap();
        let at = |i: usize| packed.tensors[i].1;
        let even = g.strided(&[at(1), at(3), at(5)]).unwrap();
        assert_eq!(even, Strided { storage: packed.storages[0], offset: 256, stride: 512 });
        assert_eq!(g.strided(&[at(0), at(1), at(3)]), None);
        assert_eq!(g.strided(&[at(1), at(0)]), None);
        let copied = g.strided_or_copied(&[at(0), at(1), at(3)]).unwrap();
        assert_eq!((copied.stride, g.calls().len()), (256, 3));
        assert!(g.view(packed.storages[0], 64, "unaligned", &[1]).is_err());
        assert!(g.view(packed.storages[0], 1408, "outside", &[129]).is_err());
    }
}
