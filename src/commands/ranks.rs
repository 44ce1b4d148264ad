//! What the ranks of a run settle before its first step: which adapter each takes, and that all of them do the same.

use crate::config::{RunConfig, TrainConfig};
use crate::data::{Dataset, Fingerprint};
use crate::error::{Error, Result};
use crate::gpu::adapter::{self, AdapterRequest};
use crate::kernel::KernelTable;
use crate::runtime::device::Device;
use crate::runtime::distributed::{World, agree};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The adapter of this rank: the one that was asked for, or one for each rank of a machine.
///
/// # Errors
/// As [`adapter::choose`].
pub(super) fn adapter(world: &World, request: &AdapterRequest) -> Result<AdapterRequest> {
    let asked = request.adapter.as_deref() == Some(adapter::LOCAL_RANK);
    if world.size() > 1 || asked { adapter::for_local_rank(request, world.local_rank()) } else { Ok(request.clone()) }
}

/// Refuses ranks that run another program, or the same one with other settings or data.
///
/// # Errors
/// Which ranks, what differs, and how; settings that so many ranks cannot share.
pub(super) fn agree_on_job(world: &World, config: &RunConfig, data: &Dataset) -> Result<()> {
    let (ranks, train) = (world.size(), &config.train);
    if ranks == 1 {
        return Ok(());
    }
    let mut all = vec![("settings", settings(config)?), ("data", to_json(&Fingerprint::of(data)?)?)];
    if !train.mixed_adapters {
        all.push(("program", program()?));
    }
    agree(world, &all)?;
    if train.gradient_leaves.is_multiple_of(ranks) {
        return Ok(());
    }
    let micro_batches = train.grad_accum(&config.model)?;
    // All say this. Who ends before another has found it would be what that one says.
    let _ = world.barrier();
    let more = if micro_batches.is_multiple_of(ranks) {
        String::new()
    } else {
        let tokens = ranks * train.batch_size * config.model.seq_length;
        format!(", and train.total_batch_tokens to a multiple of {tokens}")
    };
    Err(Error::usage(format!(
        "train.gradient_leaves is {}, which {ranks} ranks cannot share out evenly: set it to a multiple of {ranks}{more}",
        train.gradient_leaves
    )))
}

/// As [`agree_on_job`], for a study.
///
/// # Errors
/// As there; a file that cannot be read.
pub(super) fn agree_on_study(world: &World, file: &Path, data: &Dataset) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let text = std::fs::read_to_string(file).map_err(|cause| Error::io("read", file, &cause))?;
    agree(world, &[("study", text), ("data", to_json(&Fingerprint::of(data)?)?), ("program", program()?)])
}

/// All settings but where the run is written, which only rank 0 does.
fn settings(config: &RunConfig) -> Result<String> {
    RunConfig { out_dir: Default::default(), ..config.clone() }.to_toml()
}

/// The program by its file.
fn program() -> Result<String> {
    let path = std::env::current_exe().map_err(|cause| Error::io("find", Path::new("this program"), &cause))?;
    let bytes = std::fs::read(&path).map_err(|cause| Error::io("read", &path, &cause))?;
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("tokenformer {} with SHA-256 {sum}", env!("CARGO_PKG_VERSION")))
}

/// `own`, or what rank 0 chose in its place.
///
/// # Errors
/// A rank that ended.
pub(super) fn as_root(world: &World, own: TrainConfig) -> Result<TrainConfig> {
    if world.size() == 1 {
        return Ok(own);
    }
    let told = world.broadcast(world.is_root().then(|| to_json(&own)).transpose()?.map(String::into_bytes))?;
    of_json(&told)
}

/// The kernels that all use: those of rank 0, as others may add up in another order. Ranks that may have other bits choose
/// their own.
///
/// # Errors
/// Those of `tune`; a rank that ended.
pub(super) fn tune(
    world: &World,
    mixed: bool,
    stored: BTreeMap<String, String>,
    tune: impl Fn(&BTreeMap<String, String>) -> Result<KernelTable>,
) -> Result<KernelTable> {
    if world.size() == 1 || mixed {
        return tune(&stored);
    }
    if world.is_root() {
        let kernels = tune(&stored)?;
        world.broadcast(Some(to_json(&kernels.names())?.into_bytes()))?;
        return Ok(kernels);
    }
    tune(&of_json(&world.broadcast(None)?)?)
}

/// Refuses ranks whose devices make other bits.
///
/// # Errors
/// Which ranks, and their devices.
pub(super) fn agree_on_device(world: &World, mixed: bool, device: &Device) -> Result<()> {
    if world.size() == 1 || mixed {
        return Ok(());
    }
    let all = [("adapter", device.engine.gpu.describe()), ("kernels", to_json(&device.kernels.names())?)];
    agree(world, &all).map_err(|error| match error {
        Error::Usage(what) => Error::usage(format!("{what}, or accept other bits with --mixed")),
        other => other,
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::defect(format!("what ranks tell each other is no JSON: {e}")))
}

fn of_json<T: serde::de::DeserializeOwned>(told: &[u8]) -> Result<T> {
    serde_json::from_slice(told).map_err(|e| Error::rank(format!("rank 0 says what is not understood here: {e}")))
}
