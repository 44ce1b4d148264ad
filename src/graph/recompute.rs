//! Activation recomputation as a rewrite of a recorded graph: memory for time.
//!
//! The backward of a layer reads what its forward left behind. With [`Graph::recompute`] a layer keeps only its
//! input; just before its backward, the calls that made the rest are replayed into tensors of their own. The calls
//! are the same and so are their results, bit for bit. One more forward is computed, about a quarter more operations.

use super::view::View;
use super::{Call, Class, Graph, Tensor, TensorInfo};
use crate::kernel::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

impl Graph {
    /// Marks the beginning of a layer.
    pub fn begin_layer(&mut self) {
        self.layer = Some(self.layers.len());
        self.layers.push(self.calls.len());
    }

    /// Marks the end of the last layer.
    pub fn end_layers(&mut self) {
        self.layer = None;
        self.layers.push(self.calls.len());
    }

    /// Replaces saved activations of layers by computing them again. After [`Graph::backward`]; without a
    /// backward, nothing changes.
    pub fn recompute(&mut self) {
        let Some(forward_end) = self.forward_end else { return };
        // The backward meets the last layer first; what is inserted for it moves only what comes later.
        for pair in self.layers.clone().windows(2).rev() {
            if let &[start, end] = pair {
                self.recompute_layer(start..end, forward_end);
            }
        }
    }

    fn recompute_layer(&mut self, layer: Range<usize>, forward_end: usize) {
        // In storages: a view has no memory of its own.
        let storage = |t: Tensor| self.storage(t);
        let bound = |call: &Call| call.tensors.iter().map(|&t| storage(t)).collect::<Vec<_>>();
        let uses = |calls: &[Call]| calls.iter().flat_map(bound).collect::<BTreeSet<Tensor>>();
        let before = uses(&self.calls[..layer.start]);
        let after = uses(&self.calls[layer.end..forward_end]);
        // Made here, and of no use to the layers that follow.
        let own: BTreeSet<Tensor> = uses(&self.calls[layer.clone()])
            .into_iter()
            .filter(|t| self.tensors[t.0].class == Class::Activation && !before.contains(t) && !after.contains(t))
            .collect();
        let Some(first) =
            (forward_end..self.calls.len()).find(|&i| bound(&self.calls[i]).iter().any(|tensor| own.contains(tensor)))
        else {
            return;
        };
        let read_later = uses(&self.calls[forward_end..]);
        let mut needed: BTreeSet<Tensor> = own.intersection(&read_later).copied().collect();
        let mut replayed: Vec<Call> = Vec::new();
        for call in self.calls[layer].iter().rev() {
            let writes = |(tensor, access): (&Tensor, &Access)| *access == Access::Write && needed.contains(tensor);
            let bound = bound(call);
            if bound.iter().zip(call.kernel.bindings).any(writes) {
                needed.extend(bound.iter().filter(|tensor| own.contains(tensor)));
                replayed.push(call.clone());
            }
        }
        replayed.reverse();
        let mut again: BTreeMap<Tensor, Tensor> = BTreeMap::new();
        for tensor in needed {
            let info = self.tensors[tensor.0].clone();
            again.insert(tensor, self.typed(info.name, &info.shape, info.dtype, info.class));
        }
        for index in 0..self.tensors.len() {
            let info = self.tensors[index].clone();
            let Some(View { storage, offset }) = info.view else { continue };
            if let Some(&storage) = again.get(&storage) {
                self.tensors.push(TensorInfo { view: Some(View { storage, offset }), ..info });
                again.insert(Tensor(index), Tensor(self.tensors.len() - 1));
            }
        }
        let rename = |call: &mut Call| {
            for tensor in &mut call.tensors {
                *tensor = again.get(tensor).copied().unwrap_or(*tensor);
            }
        };
        replayed.iter_mut().for_each(rename);
        self.calls[forward_end..].iter_mut().for_each(rename);
        self.calls.splice(first..first, replayed);
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::plan::Plan;
    use crate::graph::{Graph, Tensor};
    use crate::kernel::{Access, Kernel, KernelTable, Target};

    static FORWARD: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);
    static BACKWARD: Kernel = Kernel::new("elementwise.wgsl", "add", &[Access::Read, Access::Read, Access::Write]);

    /// An op whose backward reads its input.
    fn op(g: &mut Graph, x: Tensor) -> Tensor {
        let y = g.activation("y", &[1000]);
        g.call(&FORWARD).bind(&[x, y]).record().unwrap();
        g.on_backward(move |g| {
            let dy = g.take_grad(y)?;
            let (dx, _) = g.grad_target(x)?;
            g.call(&BACKWARD).bind(&[x, dy, dx]).record()
        });
        y
    }

    /// `layers` layers of two ops each.
    fn chain(layers: usize, recompute: bool) -> Graph {
        let mut g = Graph::training(&KernelTable::defaults(Target::WEBGPU));
        let input = g.parameter("x", &[1000]);
        let mut x = op(&mut g, input);
        for _ in 0..layers {
            g.begin_layer();
            let inner = op(&mut g, x);
            x = op(&mut g, inner);
        }
        g.end_layers();
        let y = op(&mut g, x);
        let dy = g.state("dy", &[1000]);
        g.set_grad(y, dy);
        g.backward().unwrap();
        if recompute {
            g.recompute();
        }
        g
    }

    #[test]
    fn each_layer_keeps_its_input_only_and_runs_once_more() {
        let (plain, rewritten) = (chain(6, false), chain(6, true));
        // Of the two calls of a layer the second makes the next layer's input, which is kept.
        assert_eq!(rewritten.calls().len(), plain.calls().len() + 6);
        let saved = |g: &Graph| {
            let plan = Plan::new(g).unwrap();
            plan.slots.iter().filter(|slot| slot.saved).count()
        };
        assert_eq!((saved(&plain), saved(&rewritten)), (13, 7));
    }
}
