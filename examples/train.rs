//! Trains a tiny TokenFormer on the built-in text and lets it write. Seconds on any adapter:
//!
//! ```sh
//! cargo run --release --example train
//! ```

use std::sync::atomic::AtomicBool;
use tokenformer::config::RunConfig;
use tokenformer::error::{Error, Result};
use tokenformer::gpu::adapter::AdapterRequest;
use tokenformer::runtime::device::Device;
use tokenformer::train;
use tokenformer::train::disk::{self, Start};

fn main() -> Result<()> {
    // The best adapter that is there; WGPU_BACKEND and WGPU_ADAPTER_NAME choose another.
    let device = Device::open(&AdapterRequest::default())?;
    println!("adapter: {}", device.engine.gpu.describe());

    // A preset, and what is different here. `RunConfig::read` takes a TOML file instead.
    let dir = tempfile::tempdir().map_err(|e| Error::input(format!("no temporary directory: {e}")))?;
    let mut config = RunConfig::preset("quickstart")?;
    config.out_dir = dir.path().to_owned();
    config.growth.clear();
    config.train.max_steps = 40;
    config.train.batch_size = 4;
    config.train.eval_interval = 20;
    config.train.eval_batches = 4;
    config.train.sample_tokens = 60;

    // The text says how many tokens there are, and with it the settings are complete.
    let data = disk::dataset(&config, None)?;
    config.model.resolve_vocab(data.vocab_size)?;
    config.validate()?;

    let start = Start::fresh(&config);
    let stop = AtomicBool::new(false); // what Ctrl-C sets in the program
    let summary = train::run(&device, &config, &data, start, &stop)?;

    println!("{} parameters, {} steps", summary.parameters, summary.steps);
    println!(
        "validation loss {:.3} nats a token; guessing would give {:.3}",
        summary.val_loss,
        uniform(data.vocab_size)
    );
    println!("it writes: {:?}", summary.sample);
    if summary.val_loss < uniform(data.vocab_size) {
        return Ok(());
    }
    Err(Error::Diverged("the model has learnt nothing".to_owned()))
}

/// The loss of a model that takes every token for as likely.
fn uniform(vocab_size: usize) -> f64 {
    (vocab_size as f64).ln()
}
