//! From a recorded [`Graph`] to slots: every limit checked and every byte known, before anything is
//! allocated.
//!
//! Activations are packed by lifetime: two that are never needed at the same call share a *slot*, one
//! buffer as large as the largest of them. (Slots are whole buffers, not ranges of one arena, because
//! WebGPU tracks hazards per buffer and refuses one buffer bound both for reading and for writing.)

use super::{Call, Class, Graph, TensorInfo};
use crate::error::{Error, Result};
use crate::kernel::{Access, MAX_WORKGROUPS, ProductKind, Target};
use crate::report::number;

/// Memory shared by activations that live at different times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Size in bytes.
    pub bytes: u64,
    /// Whether something in it is saved by the forward pass for the backward pass.
    pub saved: bool,
}

/// Where a tensor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a buffer of its own, found by name.
    Named,
    /// In the slot of this index.
    Slot(usize),
    /// In its storage, see [`super::view`].
    View,
    /// Where its parts are, see [`TensorInfo::parts`].
    Parts,
    /// Nowhere: no call uses it.
    Unused,
}

/// A checked, laid-out computation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tensors, by [`super::Tensor::index`].
    pub tensors: Vec<TensorInfo>,
    /// Dispatches in order.
    pub calls: Vec<Call>,
    /// Place of each tensor.
    pub places: Vec<Place>,
    /// Slots, largest first.
    pub slots: Vec<Slot>,
    /// Layout and (m, n, k) of every matrix product, for tuning.
    pub products: Vec<ProductKind>,
}

/// First and last call that touches a tensor.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    first: usize,
    last: usize,
}

impl Plan {
    /// Checks `graph` against the limits of its target and assigns slots.
    ///
    /// # Errors
    /// A tensor over the limit is named with its bytes, the limit and what would make it smaller.
    pub fn new(graph: &Graph) -> Result<Self> {
        let (target, tensors) = (graph.kernels().target(), graph.tensors());
        for info in known_first(tensors) {
            check_size(info, target)?;
        }
        for call in graph.calls() {
            check_call(call, target)?;
        }
        Ok(Self::unchecked(graph))
    }

    /// As [`Self::new`] on a device without limits: for the bytes of what cannot run.
    pub(crate) fn unchecked(graph: &Graph) -> Self {
        let tensors = graph.tensors().to_vec();
        let lifetimes = lifetimes(graph);
        let (places, slots) = pack(&tensors, &lifetimes, graph.forward_end());
        let products = graph.calls().iter().filter_map(|call| call.product).collect();
        Self { tensors, calls: graph.calls().to_vec(), places, slots, products }
    }

    /// The first tensor of a class that `target` has no binding for.
    pub(crate) fn over(&self, class: Class, target: &Target) -> Option<&TensorInfo> {
        known_first(&self.tensors).find(|info| info.class == class && info.bytes() > target.max_tensor())
    }

    /// Parameters that this device cannot bind as a whole, and into how many parts they are cut for it.
    pub(crate) fn in_parts(&self) -> impl Iterator<Item = (&TensorInfo, usize)> {
        let parameters = self.tensors.iter().filter(|info| info.class == Class::Parameter);
        parameters.map(|info| (info, info.parts.len())).filter(|(_, parts)| *parts > 0)
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.calls.iter().map(|c| c.flops).sum()
    }

    /// Bytes that the dispatches of one run read and write: what a device moves if no cache holds anything from one
    /// dispatch to the next.
    pub(crate) fn traffic(&self) -> u64 {
        self.calls.iter().map(|c| c.bytes).sum()
    }
}

/// All tensors with memory, views first: they have the names that a user knows.
fn known_first(tensors: &[TensorInfo]) -> impl Iterator<Item = &TensorInfo> {
    tensors.iter().filter(|t| t.view.is_some()).chain(tensors).filter(|t| t.parts.is_empty())
}

fn check_size(info: &TensorInfo, target: &Target) -> Result<()> {
    let (bytes, most) = (info.bytes(), target.max_tensor());
    if bytes <= most {
        return Ok(());
    }
    let rows = info.shape.first().copied().unwrap_or(1) as u64;
    let most_rows = most / (bytes / rows.max(1)).max(1);
    let remedy = match info.class {
        Class::Activation if info.name == "logits" && most_rows > 0 => {
            &format!("use a train.loss_chunk_rows (rows of logits held at once) of at most {most_rows}")
        }
        Class::Activation | Class::State => "use a smaller batch_size or seq_length",
        _ if info.name.contains("word_embeddings") => "use a smaller vocabulary or hidden_size",
        _ if info.name.contains(".mlp.") => "use a smaller ffn_slot_num or hidden_size",
        _ => "use fewer parameter tokens or a smaller hidden_size",
    };
    Err(Error::device(format!(
        "tensor \"{}\" needs {} in one binding, this device allows {}; {remedy}, or another adapter",
        info.name,
        number::bytes(bytes),
        number::bytes(most)
    )))
}

fn check_call(call: &Call, target: &Target) -> Result<()> {
    let storage = call.kernel.bindings.iter().filter(|a| **a != Access::Uniform).count();
    if storage > target.max_storage_buffers as usize || call.groups > MAX_WORKGROUPS {
        return Err(Error::device(format!(
            "kernel {} needs {storage} storage buffers and {} workgroups, this device allows {} and {MAX_WORKGROUPS}; \
             use another adapter",
            call.kernel.name(),
            call.groups,
            target.max_storage_buffers
        )));
    }
    Ok(())
}

fn lifetimes(graph: &Graph) -> Vec<Option<Lifetime>> {
    let mut lifetimes: Vec<Option<Lifetime>> = vec![None; graph.tensors().len()];
    for (i, call) in graph.calls().iter().enumerate() {
        for &tensor in &call.tensors {
            let owner = graph.storage(tensor).index();
            let lifetime = lifetimes[owner].get_or_insert(Lifetime { first: i, last: i });
            lifetime.last = i;
        }
    }
    lifetimes
}

/// Largest tensors first, each into the first slot that is free during its lifetime. A slot is as
/// large as the first tensor put in it, so nothing is ever enlarged.
fn pack(tensors: &[TensorInfo], lifetimes: &[Option<Lifetime>], forward_end: Option<usize>) -> (Vec<Place>, Vec<Slot>) {
    let place = |info: &TensorInfo| match info {
        TensorInfo { view: Some(_), .. } => Place::View,
        TensorInfo { parts, .. } if !parts.is_empty() => Place::Parts,
        TensorInfo { class: Class::Activation, .. } => Place::Unused,
        _ => Place::Named,
    };
    let mut places: Vec<Place> = tensors.iter().map(place).collect();
    let mut order: Vec<(u64, usize, Lifetime)> = tensors
        .iter()
        .zip(lifetimes)
        .enumerate()
        .filter(|(_, (info, _))| info.class == Class::Activation)
        .filter_map(|(i, (info, lifetime))| lifetime.map(|l| (info.bytes(), i, l)))
        .collect();
    order.sort_by_key(|&(bytes, i, _)| (std::cmp::Reverse(bytes), i));

    let mut slots: Vec<Slot> = Vec::new();
    let mut occupied: Vec<Vec<Lifetime>> = Vec::new();
    for (bytes, tensor, life) in order {
        let free = |taken: &Vec<Lifetime>| taken.iter().all(|t| life.last < t.first || t.last < life.first);
        let index = occupied.iter().position(free).unwrap_or_else(|| {
            slots.push(Slot { bytes, saved: false });
            occupied.push(Vec::new());
            slots.len() - 1
        });
        occupied[index].push(life);
        slots[index].saved |= forward_end.is_some_and(|end| life.first < end && end <= life.last);
        places[tensor] = Place::Slot(index);
    }
    (places, slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernel, KernelTable, Target};

    static STEP: Kernel = Kernel::new("elementwise.wgsl", "copy", &[Access::Read, Access::Write]);

    fn chain(lengths: &[usize]) -> Graph {
        let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
        let mut x = g.state("in", &[lengths[0]]);
        for &n in lengths {
            let y = g.activation("y", &[n]);
            g.call(&STEP).bind(&[x, y]).record().unwrap();
            x = y;
        }
        g
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let plan = Plan::new(&chain(&[100, 50, 80, 20, 90])).unwrap();
        assert_eq!(plan.slots.iter().map(|s| s.bytes).collect::<Vec<_>>(), [400, 200]);
    }

    #[test]
    fn tensors_alive_together_never_share() {
        let graph = chain(&[7, 9, 3, 8, 8, 2, 9]);
        let plan = Plan::new(&graph).unwrap();
        for call in &plan.calls {
            let slots: Vec<_> = call.tensors.iter().map(|t| plan.places[t.index()]).collect();
            assert_ne!(slots[0], slots[1]);
        }
    }

    #[test]
    fn a_tensor_over_the_limit_is_named_with_the_remedy() {
        let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
        g.parameter("layers.3.mlp.key_param_tokens", &[49_152, 768]);
        let error = Plan::new(&g).unwrap_err().to_string();
        assert!(error.contains("layers.3.mlp.key_param_tokens") && error.contains("151.0 MB"), "{error}");
        assert!(error.contains("134.2 MB") && error.contains("ffn_slot_num"), "{error}");
        let of_logits = |rows| {
            let mut g = Graph::forward_only(&KernelTable::defaults(Target::WEBGPU));
            g.activation("logits", &[rows, 40_000]);
            Plan::new(&g).map(drop)
        };
        let error = of_logits(1024).unwrap_err().to_string();
        assert!(error.contains("train.loss_chunk_rows") && error.contains("at most 838"), "{error}");
        assert!(of_logits(838).is_ok() && of_logits(839).is_err());
    }
}
