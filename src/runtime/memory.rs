//! Device memory shared by several plans: tensors by name, and one pool of slots.
//!
//! A [`Ledger`] counts what plans will need without a device; [`Memory`] allocates exactly that.
//! The plans of a run (training, evaluation, sampling) take turns, so their activations use the same
//! slots, and parameters are found by name. All plans are admitted before the first step; after it
//! nothing is allocated until a growth.

use crate::error::{Error, Result};
use crate::gpu::engine::{BYTE_COST, Block, Dispatch, Engine, Program};
use crate::graph::plan::{Place, Plan, Slot};
use crate::graph::view::View;
use crate::graph::{Class, Tensor};
use crate::report::number;
use std::collections::BTreeMap;

/// Bytes by class, as `tokenformer plan` prints them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bytes {
    /// Learnable parameters.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimizer's moments.
    pub moments: u64,
    /// The moving averages of parameters.
    pub averages: u64,
    /// Slots that hold something saved for the backward pass.
    pub activations: u64,
    /// Other slots, token buffers, tables, statistics and key/value caches.
    pub workspace: u64,
}

impl Bytes {
    /// Sum over the classes.
    pub fn total(&self) -> u64 {
        self.parameters + self.gradients + self.moments + self.averages + self.activations + self.workspace
    }
}

/// Counts the memory of a set of plans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    named: BTreeMap<String, (Class, u64)>,
    slots: Vec<Slot>,
}

impl Ledger {
    /// Adds a plan.
    ///
    /// # Errors
    /// A tensor known under the same name with another size is a defect and refused.
    pub(crate) fn admit(&mut self, plan: &Plan) -> Result<()> {
        for (info, place) in plan.tensors.iter().zip(&plan.places) {
            if *place != Place::Named {
                continue;
            }
            let bytes = info.bytes();
            let known = self.named.entry(info.name.clone()).or_insert((info.class, bytes));
            if known.1 != bytes {
                return Err(Error::defect(format!(
                    "tensor \"{}\" has {bytes} bytes in one plan and {} in another",
                    info.name, known.1
                )));
            }
        }
        // Slots are sorted by size in every plan, so slot i of all plans share one buffer.
        for (i, slot) in plan.slots.iter().enumerate() {
            match self.slots.get_mut(i) {
                Some(have) => {
                    have.bytes = have.bytes.max(slot.bytes);
                    have.saved |= slot.saved;
                }
                None => self.slots.push(*slot),
            }
        }
        Ok(())
    }

    /// Bytes by class.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut sum = Bytes::default();
        for &(class, bytes) in self.named.values() {
            match class {
                Class::Parameter => sum.parameters += bytes,
                Class::Gradient => sum.gradients += bytes,
                Class::Moment => sum.moments += bytes,
                Class::Average => sum.averages += bytes,
                Class::State | Class::Activation => sum.workspace += bytes,
            }
        }
        for slot in &self.slots {
            *if slot.saved { &mut sum.activations } else { &mut sum.workspace } += slot.bytes;
        }
        sum
    }
}

/// Allocated memory of a set of plans on one device.
#[derive(Default)]
pub struct Memory {
    named: BTreeMap<String, Block>,
    /// Those of tables in parts.
    in_parts: BTreeMap<String, Vec<Block>>,
    /// Of all parameters.
    gradients: Vec<Block>,
    slots: Vec<Block>,
    bytes: Bytes,
}

impl Memory {
    /// Allocates what `plans` need together, zeroed, and prepares their dispatches.
    ///
    /// # Errors
    /// Out of device memory: how much was needed in all, and the remedy. A kernel that does not compile.
    pub fn allocate(engine: &Engine, plans: &[&Plan]) -> Result<(Self, Vec<Program>)> {
        let memory = Self::of(engine, plans)?;
        let programs = plans.iter().map(|plan| memory.program(engine, plan)).collect::<Result<_>>()?;
        Ok((memory, programs))
    }

    /// As [`Memory::allocate`], with nothing prepared yet.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn of(engine: &Engine, plans: &[&Plan]) -> Result<Self> {
        let mut ledger = Ledger::default();
        for plan in plans {
            ledger.admit(plan)?;
        }
        let mut memory = Self { bytes: ledger.bytes(), ..Self::default() };
        let with_total = |e: Error| match e {
            Error::OutOfMemory { detail, .. } => {
                let total = ledger.bytes().total();
                let needed = number::bytes(total);
                Error::out_of_memory(
                    total,
                    format!(
                        "{detail} (the run needs {needed} of device memory in all; use a smaller batch_size or model)"
                    ),
                )
            }
            other => other,
        };
        for (name, &(class, bytes)) in &ledger.named {
            let block = engine.allocate(name, bytes).map_err(with_total)?;
            if class == Class::Gradient {
                memory.gradients.push(block.clone());
            }
            memory.named.insert(name.clone(), block);
        }
        for plan in plans {
            memory.name_views(plan);
        }
        for (i, slot) in ledger.slots.iter().enumerate() {
            memory.slots.push(engine.allocate(&format!("slot {i}"), slot.bytes).map_err(with_total)?);
        }
        Ok(memory)
    }

    /// Makes views of what has a name known under their own, and tables in parts under theirs.
    fn name_views(&mut self, plan: &Plan) {
        for info in &plan.tensors {
            let Some(View { storage, .. }) = info.view else { continue };
            if let Some(block) = self.named.get(&plan.tensors[storage.index()].name) {
                let part = block.part(info.byte_offset(), info.bytes());
                self.named.insert(info.name.clone(), part);
            }
        }
        for info in plan.tensors.iter().filter(|info| !info.parts.is_empty()) {
            let names = info.parts.iter().map(|part| &plan.tensors[part.index()].name);
            let blocks: Vec<Block> = names.filter_map(|name| self.named.get(name)).cloned().collect();
            self.in_parts.insert(info.name.clone(), blocks);
        }
    }

    /// As [`Memory::allocate`] for one plan, with no memory shared between its tensors, each followed
    /// by guard words, and poison instead of zeros: for tests. Returns the blocks by tensor; those of views have no
    /// guard of their own.
    pub(crate) fn allocate_guarded(engine: &Engine, plan: &Plan) -> Result<(Self, Program, Vec<Block>)> {
        let mut blocks: Vec<Block> = Vec::with_capacity(plan.tensors.len());
        for info in &plan.tensors {
            // A storage is recorded before its views, and a table after its parts, of which nothing binds it for another.
            let block = match (info.view, info.parts.first()) {
                (Some(View { storage, .. }), _) => blocks[storage.index()].part(info.byte_offset(), info.bytes()),
                (None, Some(part)) => blocks[part.index()].clone(),
                (None, None) => engine.allocate_guarded(&info.name, info.bytes())?,
            };
            blocks.push(block);
        }
        let named = plan.tensors.iter().zip(&blocks).map(|(info, b)| (info.name.clone(), b.clone())).collect();
        let program = Self::prepare(engine, plan, |t| blocks[t.index()].clone())?;
        Ok((Self { named, ..Self::default() }, program, blocks))
    }

    /// Prepares the dispatches of one of the plans this was allocated for.
    ///
    /// # Errors
    /// A kernel that does not compile.
    pub fn program(&self, engine: &Engine, plan: &Plan) -> Result<Program> {
        Self::prepare(engine, plan, |t| self.block(plan, t))
    }

    /// Where a tensor of an allocated plan is.
    pub fn block(&self, plan: &Plan, tensor: Tensor) -> Block {
        let info = &plan.tensors[tensor.index()];
        match (plan.places[tensor.index()], info.view) {
            (_, Some(View { storage, .. })) => self.block(plan, storage).part(info.byte_offset(), info.bytes()),
            (Place::Slot(i), None) => self.slots[i].sized(info.bytes()),
            _ => self.named[&info.name].clone(),
        }
    }

    fn prepare(engine: &Engine, plan: &Plan, block: impl Fn(Tensor) -> Block) -> Result<Program> {
        let dispatches: Vec<Dispatch> = plan
            .calls
            .iter()
            .map(|call| Dispatch {
                kernel: call.kernel,
                dims: call.parameters.words(),
                blocks: call.tensors.iter().map(|&t| block(t)).collect(),
                groups: call.groups,
                cost: call.flops as f64 + BYTE_COST * call.bytes as f64,
            })
            .collect();
        engine.prepare(&dispatches)
    }

    /// The block of a named tensor.
    ///
    /// # Errors
    /// An unknown name is a defect and says so.
    pub fn named(&self, name: &str) -> Result<&Block> {
        self.named.get(name).ok_or_else(|| Error::defect(format!("no tensor \"{name}\" on the device")))
    }

    /// The blocks of a named tensor, one after the other: several where it is a table in parts.
    fn blocks(&self, name: &str) -> Result<&[Block]> {
        match self.in_parts.get(name) {
            Some(blocks) => Ok(blocks),
            None => self.named(name).map(std::slice::from_ref),
        }
    }

    /// Writes all of a named tensor.
    ///
    /// # Errors
    /// Those of [`Memory::named`]; device errors.
    pub fn write(&self, engine: &Engine, name: &str, data: &[f32]) -> Result<()> {
        let mut rest = data;
        for block in self.blocks(name)? {
            let (part, later) = rest.split_at(rest.len().min((block.bytes() / 4) as usize));
            engine.write_all(block, part)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads all of a named tensor back.
    ///
    /// # Errors
    /// Those of [`Memory::named`]; device errors.
    pub fn read(&self, engine: &Engine, name: &str) -> Result<Vec<f32>> {
        let blocks = self.blocks(name)?;
        if let [block] = blocks {
            return engine.read(block);
        }
        let mut data = Vec::new();
        for block in blocks {
            data.extend(engine.read(block)?);
        }
        Ok(data)
    }

    /// The gradients of all parameters, for clearing them.
    pub fn gradients(&self) -> &[Block] {
        &self.gradients
    }

    /// Bytes by class.
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }
}
