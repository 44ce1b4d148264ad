//! What a run that several ranks train decides once, and who writes.
//!
//! All ranks have the same model and the same numbers, so all decide the same. What only rank 0 does (it writes everything
//! there is to write) is told to the others where they have to know what came of it.

use super::Run;
use crate::console::detail;
use crate::error::{Error, Result};
use crate::model::init::Tensors;
use crate::report::shell;
use crate::runtime::distributed::{World, agree};
use crate::train::growth::HostModel;
use crate::train::parallel::told::{Heard, Told};
use crate::train::trainer::Trainer;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// What rank 0 says: that it did something, that a question is answered with no or yes, or why the model diverged.
const DONE: u8 = 0;
const DIVERGED: u8 = 1;
const NO: u8 = 2;
const YES: u8 = 3;

/// What a run knows of its ranks.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// What the last step came to on this rank's device: its number, and the bits of loss and norm.
    pub(super) measured: Option<(u64, [u32; 2])>,
    /// What the last two exchanges came to: the numbers of a step are read while the next one is on its way.
    heard: [Heard; 2],
}

impl Ranks {
    /// What the exchange of a step came to.
    pub(super) fn hear(&mut self, heard: Heard) {
        self.heard.swap(0, 1);
        self.heard[0] = heard;
    }

    /// Where the first rank has the last step in the schedule.
    pub(super) fn place(&self) -> Option<f64> {
        self.heard[0].told.first().map(|told| told.place)
    }

    fn of_step(&self, step: u64) -> Option<&Heard> {
        self.heard.iter().find(|heard| heard.told.first().is_some_and(|told| told.step == step))
    }
}

/// What `act` gives on rank 0; `None` on the others, who wait for it, and fail as it does where the model diverged.
///
/// # Errors
/// Those of `act`; where it fails otherwise, the other ranks hear of that.
pub(super) fn by_root<T>(world: &World, act: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if world.size() == 1 {
        return act().map(Some);
    }
    if !world.is_root() {
        let told = world.broadcast(None)?;
        return match told.split_first() {
            Some((&DIVERGED, why)) => Err(Error::Diverged(String::from_utf8_lossy(why).into_owned())),
            _ => Ok(None),
        };
    }
    let made = act();
    match &made {
        Ok(_) => world.broadcast(Some(vec![DONE])).map(drop)?,
        Err(Error::Diverged(why)) => {
            world.broadcast(Some([&[DIVERGED], why.as_bytes()].concat())).map(drop)?;
        }
        Err(other) => world.fail(&other.to_string()),
    }
    made.map(Some)
}

/// What rank 0 says.
///
/// # Errors
/// A rank that ended.
pub(super) fn root_says(world: &World, says: impl FnOnce() -> Result<bool>) -> Result<bool> {
    if world.size() == 1 {
        return says();
    }
    if !world.is_root() {
        return Ok(world.broadcast(None)?.first() == Some(&YES));
    }
    let said = says().inspect_err(|error| world.fail(&error.to_string()))?;
    world.broadcast(Some(vec![if said { YES } else { NO }])).map(|_| said)
}

/// Refuses ranks that start from another model: each reads it for itself.
///
/// # Errors
/// Which rank, and what differs.
pub(super) fn agree_on_start(world: &World, step: u64, host: &HostModel) -> Result<()> {
    let sums = || [&host.params, &host.moment1, &host.moment2, &host.averages].map(checksum);
    agree_on(world, || Ok(vec![("step", step.to_string()), ("checksum of the model", format!("{:x?}", sums()))]))
}

/// Refuses ranks whose model a growth made another: each grows it for itself.
///
/// # Errors
/// Which rank, and what differs.
pub(super) fn agree_on_model(world: &World, trainer: &Trainer) -> Result<()> {
    agree_on(world, || Ok(vec![("checksum of the grown model", format!("{:x}", checksum(&trainer.parameters()?)))]))
}

fn agree_on(world: &World, what: impl Fn() -> Result<Vec<(&'static str, String)>>) -> Result<()> {
    if world.size() == 1 { Ok(()) } else { agree(world, &what()?) }
}

fn checksum(tensors: &Tensors) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for (name, tensor) in tensors {
        sum.update(name.as_bytes());
        sum.update(bytemuck::cast_slice(&tensor.data));
    }
    sum.finalize()
}

impl Run<'_> {
    pub(super) fn world(&self) -> &World {
        self.trainer.world()
    }

    /// Whether the run was asked to stop: of several ranks any, as all know since the last step.
    pub(super) fn is_stopped(&self, stop: &AtomicBool) -> bool {
        if self.world().size() == 1 { stop.load(Ordering::Relaxed) } else { self.ranks.heard[0].stop() }
    }

    /// What a line of the metrics says of the exchange of a step.
    pub(super) fn describe_ranks(&self, line: &mut Value, step: u64) {
        let Some(heard) = self.ranks.of_step(step) else { return };
        let Some((rank, seconds)) = heard.slowest() else { return };
        let tokens = self.position(step + 1).tokens.saturating_sub(self.position(step).tokens) as f64;
        let own = tokens / heard.told.len() as f64;
        line["slowest_rank"] = json!({ "rank": rank, "tokens_per_second": own / seconds });
        line["tokens_per_second"] = json!(self.display.numbers.speed.as_ref().map(|speed| speed.tokens));
        line["exchange"] = json!(heard.parts);
    }

    /// What the others are told with the gradients of a step.
    pub(super) fn told(&self, step: u64, place: f64, stop: bool) -> Told {
        Told { step, place, stop, seconds: 0.0, before: self.ranks.measured }
    }

    /// Refuses to go on where devices that should have the same numbers do not: a GPU that computes wrongly, or memory that
    /// lost a bit, would otherwise be noticed by nobody.
    pub(super) fn check_heard(&self) -> Result<()> {
        let (world, own) = (self.world(), self.ranks.measured);
        let others = self.ranks.heard[0].told.iter().enumerate();
        let of_other = others.filter(|(_, told)| told.before != own).map(|(rank, told)| (rank, told.before)).next();
        let (Some((rank, Some((step, other)))), Some((_, own)), false) =
            (of_other, own, self.config.train.mixed_adapters)
        else {
            return Ok(());
        };
        let shown = |[loss, norm]: [u32; 2]| {
            format!("loss {:.7} and gradient norm {:.7}", f32::from_bits(loss), f32::from_bits(norm))
        };
        Err(Error::lost(format!(
            "in step {} {} has {}, and {} has {}: a GPU or its memory is at fault; try `tokenformer selftest` on both",
            step + 1,
            world.host(rank),
            shown(other),
            world.host(world.rank()),
            shown(own)
        )))
    }

    /// `error`, after saving the model where another rank is the reason for it and this one has all that a checkpoint holds.
    pub(super) fn saved_despite(&mut self, error: Error) -> Error {
        let Error::Rank(why) = error else { return error };
        if !self.world().is_root() {
            return Error::Rank(why);
        }
        // A step whose gradients were not complete has changed nothing.
        let mut at = String::new();
        if !self.config.train.shard_optimizer {
            match self.save_alone() {
                Ok(step) => at = format!("step {step} is saved; "),
                Err(error) => detail(format_args!("the model could not be saved once more: {error}")),
            }
        }
        Error::Rank(format!("{why}; {at}go on with tokenformer train --resume {}", shell::word(&self.config.out_dir)))
    }
}
