//! Shared by the tests that use a GPU. A machine without an adapter fails them: it does not skip them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::sync::OnceLock;
use tokenformer::config::ModelConfig;
use tokenformer::error::Result;
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::gpu::device::Gpu;
use tokenformer::gpu::engine::Engine;
use tokenformer::graph::plan::Plan;
use tokenformer::graph::{Class, Graph};
use tokenformer::kernel::KernelTable;
use tokenformer::runtime::device::Device;
use tokenformer::runtime::memory::Memory;

/// The folder of this repository: where the environment says it is now, as cargo does and scripts may, else where the tests
/// were built.
pub fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The engine of this test program, on the adapter that the environment asks for (`WGPU_BACKEND`).
pub fn engine() -> &'static Engine {
    &device().engine
}

/// The same with the kernels that the environment names (`TOKENFORMER_MATMUL`).
pub fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let gpu = Gpu::open(&AdapterRequest::default()).expect("these tests need an adapter");
        println!("adapter: {}", gpu.describe());
        Device::new(gpu).expect("a device")
    })
}

/// Its kernels.
pub fn kernels() -> &'static KernelTable {
    &device().kernels
}

/// Whether the long form of a test is asked for.
pub fn is_full() -> bool {
    std::env::var_os("TOKENFORMER_TEST_FULL").is_some()
}

/// Whether a kernel for another device than this is better tried in few forms: a software driver takes seconds to compile one.
pub fn compiles_slowly() -> bool {
    engine().gpu.target.software && !is_full()
}

/// A model of two layers, none of whose sizes is a round number.
pub fn small_model() -> ModelConfig {
    ModelConfig {
        num_layers: 2,
        hidden_size: 20,
        num_attention_heads: 2,
        seq_length: 24,
        qkv_slot_num: 9,
        proj_slot_num: 12,
        ffn_slot_num: 30,
        vocab_size: 40,
        ..ModelConfig::default()
    }
}

/// A graph allocated and run once, its named tensors readable.
pub struct Ran {
    memory: Memory,
}

impl Ran {
    /// Writes `inputs` by name (32-bit words), runs, waits.
    pub fn new(graph: &Graph, inputs: &[(&str, Vec<u32>)]) -> Result<Self> {
        let engine = engine();
        let plan = Plan::new(graph)?;
        let (memory, programs) = Memory::allocate(engine, &[&plan])?;
        for (name, words) in inputs {
            engine.write_all(memory.named(name)?, words)?;
        }
        for program in &programs {
            engine.run(program)?;
        }
        Ok(Self { memory })
    }

    pub fn read(&self, name: &str) -> Vec<f32> {
        engine().read(self.memory.named(name).expect(name)).expect(name)
    }

    /// A tensor of f16.
    pub fn read_halves(&self, name: &str) -> Vec<f32> {
        let bits = engine().read_halves(self.memory.named(name).expect(name)).expect(name);
        bits.into_iter().map(|bits| half::f16::from_bits(bits).to_f32()).collect()
    }
}

/// Bits of floats, as buffers take them.
pub fn words(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

/// Records `upstream` as the gradient of `y`, and the backward.
pub fn backward(g: &mut Graph, y: tokenformer::graph::Tensor) -> Result<()> {
    let shape = g.shape(y).to_vec();
    let upstream = g.tensor("upstream", &shape, Class::State);
    g.set_grad(y, upstream);
    g.backward()
}

/// The text of tinyshakespeare; `None`, with a message, where it is absent.
pub fn tinyshakespeare() -> Option<PathBuf> {
    let path = root().join("../shared/data/tinyshakespeare.txt");
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}
