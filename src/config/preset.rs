//! Runs by name: the default, nanoGPT's laptop run, and the four models of the paper.
//!
//! A preset is a complete [`RunConfig`]; files and flags override it key by key.

use std::path::PathBuf;

use super::{DataConfig, GrowthConfig, ModelConfig, RunConfig, TokenizerKind, TrainConfig};
use crate::error::{Error, Result};

/// A run by name.
pub struct Preset {
    /// What `--preset` and `preset = ` call it.
    pub name: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    run: fn(&str) -> RunConfig,
}

/// Every preset.
pub static PRESETS: [Preset; 10] = [
    Preset {
        name: "quickstart",
        what: "a tiny model on the built-in corpus that grows half-way: minutes on any device",
        run: |_| quickstart(),
    },
    Preset {
        name: "shakespeare-char",
        what: "nanoGPT's laptop run on tinyshakespeare: 4 layers x 128, characters",
        run: |_| shakespeare_char(),
    },
    Preset {
        name: "shakespeare-char-gpu",
        what: "nanoGPT's GPU run on tinyshakespeare: 6 layers x 384, 256 characters a sequence",
        run: |_| shakespeare_char_gpu(),
    },
    Preset {
        name: "gpt2-124m",
        what: "GPT-2's small shape, as llm.c trains it: 12 layers x 768, 1024 GPT-2 tokens a sequence",
        run: |name| gpt2(name),
    },
    Preset {
        name: "bench-tiny",
        what: "for `bench step`: 4 layers x 128, 128 tokens a sequence, 256 tokens, batch 8",
        run: |name| bench(name, BenchSize { layers: 4, width: 128, heads: 4, seq: 128, batch: 8 }),
    },
    Preset {
        name: "bench-small",
        what: "for `bench step`: 6 layers x 384, 256 tokens a sequence, 256 tokens, batch 4",
        run: |name| bench(name, BenchSize { layers: 6, width: 384, heads: 6, seq: 256, batch: 4 }),
    },
    Preset {
        name: "150m",
        what: "the paper's 150M model: 12 layers x 768, 50304 tokens",
        run: |name| paper(name, Size { layers: 12, width: 768, heads: 12, batch: 4 }),
    },
    Preset {
        name: "450m",
        what: "the paper's 450M model: 24 layers x 1024, 50304 tokens",
        run: |name| paper(name, Size { layers: 24, width: 1024, heads: 16, batch: 4 }),
    },
    Preset {
        name: "900m",
        what: "the paper's 900M model: 32 layers x 1280, 50304 tokens",
        run: |name| paper(name, Size { layers: 32, width: 1280, heads: 16, batch: 2 }),
    },
    Preset {
        name: "1-5b",
        what: "the paper's 1.5B model: 40 layers x 1536, 50304 tokens",
        run: |name| paper(name, Size { layers: 40, width: 1536, heads: 16, batch: 2 }),
    },
];

/// The names of all presets, the `default` one marked: for the help of `--preset`.
pub(crate) fn preset_names(default: &str) -> String {
    let name = |preset: &Preset| match preset.name {
        name if name == default => format!("{name} (default)"),
        name => name.to_owned(),
    };
    PRESETS.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl RunConfig {
    /// The preset called `name`, one of [`PRESETS`].
    ///
    /// # Errors
    /// A usage error naming the presets there are.
    pub fn preset(name: &str) -> Result<Self> {
        let found = PRESETS.iter().find(|preset| preset.name == name);
        found.map(|preset| (preset.run)(preset.name)).ok_or_else(|| {
            Error::usage(format!(
                "there is no preset \"{}\": choose one of {}",
                super::keys::shortened(name),
                preset_names("")
            ))
        })
    }
}

fn quickstart() -> RunConfig {
    let model = ModelConfig {
        num_layers: 2,
        hidden_size: 64,
        num_attention_heads: 4,
        seq_length: 64,
        qkv_slot_num: 64,
        proj_slot_num: 64,
        ffn_slot_num: 128,
        ..ModelConfig::default()
    };
    let train = TrainConfig {
        batch_size: 8,
        max_steps: 600,
        lr: 5e-3,
        min_lr: 2e-4,
        eval_interval: 100,
        eval_batches: 32,
        sample_interval: 300,
        sample_tokens: 120,
        checkpoint_interval: 200,
        ..TrainConfig::default()
    };
    let growth = GrowthConfig {
        at_step: 300,
        qkv_slot_num: Some(96),
        proj_slot_num: Some(96),
        ffn_slot_num: Some(256),
        ..GrowthConfig::default()
    };
    let out_dir = PathBuf::from("runs/quickstart");
    RunConfig { out_dir, model, train, data: DataConfig::default(), growth: vec![growth] }
}

/// `config/train_shakespeare_char.py` with the flags of nanoGPT's README for a laptop, without dropout.
fn shakespeare_char() -> RunConfig {
    let train = TrainConfig { beta2: 0.99, ..TrainConfig::default() };
    let data = DataConfig { path: Some(PathBuf::from("data/tinyshakespeare.txt")), ..DataConfig::default() };
    RunConfig { out_dir: PathBuf::from("runs/shakespeare-char"), train, data, ..RunConfig::default() }
}

/// `config/train_shakespeare_char.py` of nanoGPT as it is: 5000 steps of 64 sequences, dropout 0.2.
fn shakespeare_char_gpu() -> RunConfig {
    let mut run = shakespeare_char();
    run.out_dir = PathBuf::from("runs/shakespeare-char-gpu");
    run.model = ModelConfig {
        num_layers: 6,
        hidden_size: 384,
        num_attention_heads: 6,
        seq_length: 256,
        qkv_slot_num: 384,
        proj_slot_num: 384,
        ffn_slot_num: 4 * 384,
        dropout: 0.2,
        ..run.model
    };
    run.train = TrainConfig {
        batch_size: 64,
        max_steps: 5000,
        warmup_fraction: 0.02,
        eval_batches: 7,
        checkpoint_interval: 1000,
        ..run.train
    };
    run
}

/// `scripts/run_gpt2_124M.sh` of llm.c: 10 billion tokens in updates of half a million, 700 of which warm up.
fn gpt2(name: &str) -> RunConfig {
    let mut run = paper(name, Size { layers: 12, width: 768, heads: 12, batch: 16 });
    run.model.seq_length = 1024;
    run.train = TrainConfig {
        total_batch_tokens: 1 << 19,
        max_steps: 19_560,
        min_lr: 0.0,
        warmup_fraction: 700.0 / 19_560.0,
        eval_interval: 250,
        checkpoint_interval: 1000,
        keep_last: 2,
        ..run.train
    };
    run
}

/// What sets one model to be timed apart; its slots are the width, and four times the width.
struct BenchSize {
    layers: usize,
    width: usize,
    heads: usize,
    seq: usize,
    batch: usize,
}

/// Models for timing, of bytes, so that any data trains them too.
fn bench(name: &str, size: BenchSize) -> RunConfig {
    let model = ModelConfig {
        vocab_size: 256,
        num_layers: size.layers,
        hidden_size: size.width,
        num_attention_heads: size.heads,
        seq_length: size.seq,
        qkv_slot_num: size.width,
        proj_slot_num: size.width,
        ffn_slot_num: 4 * size.width,
        ..ModelConfig::default()
    };
    let train = TrainConfig { batch_size: size.batch, ..TrainConfig::default() };
    let data = DataConfig { tokenizer: Some(TokenizerKind::Byte), ..DataConfig::default() };
    RunConfig { out_dir: PathBuf::from(format!("runs/{name}")), model, train, data, growth: Vec::new() }
}

/// What sets one model of the paper apart.
struct Size {
    layers: usize,
    width: usize,
    heads: usize,
    /// Sequences a micro-batch: ours, chosen so that one tensor of scores stays within 128 MiB.
    batch: usize,
}

/// `configs/tokenformer/*_train_pile.yml` of the official repository: 1024 sequences an update.
fn paper(name: &str, size: Size) -> RunConfig {
    let model = ModelConfig {
        vocab_size: 50_304,
        num_layers: size.layers,
        hidden_size: size.width,
        num_attention_heads: size.heads,
        seq_length: 2048,
        qkv_slot_num: size.width,
        proj_slot_num: size.width,
        ffn_slot_num: 4 * size.width,
        ..ModelConfig::default()
    };
    let train = TrainConfig {
        batch_size: size.batch,
        total_batch_tokens: 1024 * 2048,
        max_steps: 143_000,
        lr: 6e-4,
        min_lr: 6e-5,
        warmup_fraction: 0.01,
        eval_interval: 5000,
        eval_batches: 1,
        sample_interval: 5000,
        keep_last: 6,
        log_interval: 1,
        ..TrainConfig::default()
    };
    // The names nanoGPT gives its token shards.
    let data = DataConfig {
        path: Some(PathBuf::from("data/train.bin")),
        val_path: Some(PathBuf::from("data/val.bin")),
        ..DataConfig::default()
    };
    RunConfig { out_dir: PathBuf::from(format!("runs/{name}")), model, train, data, growth: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for preset in &PRESETS {
            RunConfig::preset(preset.name).and_then(|run| run.validate()).unwrap();
        }
        assert!(RunConfig::preset("15m").unwrap_err().to_string().contains("150m, 450m"));
    }

    #[test]
    fn the_papers_models_have_the_papers_sizes() {
        // V*C + L*(8*C*C + 2*4C*C) + 2C, worked out by hand.
        let expected = [("150m", 151_881_216), ("450m", 454_166_528), ("900m", 903_252_480), ("1-5b", 1_587_219_456)];
        for (name, count) in expected {
            let run = RunConfig::preset(name).unwrap();
            assert_eq!(run.model.param_count(), count, "{name}");
            let sequences = run.train.batch_size * run.train.grad_accum(&run.model).unwrap();
            assert_eq!(sequences, 1024, "{name}");
        }
    }

    #[test]
    fn the_small_presets_have_their_published_settings() {
        let laptop = RunConfig::preset("shakespeare-char").unwrap();
        let (model, train) = (&laptop.model, &laptop.train);
        assert_eq!((model.num_layers, model.num_attention_heads, model.hidden_size, model.seq_length), (4, 4, 128, 64));
        assert_eq!((train.batch_size, train.max_steps, train.lr, train.beta2), (12, 2000, 1e-3, 0.99));
        let gpu = RunConfig::preset("shakespeare-char-gpu").unwrap();
        let (model, train) = (&gpu.model, &gpu.train);
        assert_eq!(
            (model.num_layers, model.num_attention_heads, model.hidden_size, model.seq_length),
            (6, 6, 384, 256)
        );
        assert_eq!(
            (train.batch_size, train.max_steps, train.lr, train.min_lr, train.beta2),
            (64, 5000, 1e-3, 1e-4, 0.99)
        );
        assert_eq!((train.warmup_fraction * train.max_steps as f64, model.dropout), (100.0, 0.2));
        let gpt2 = RunConfig::preset("gpt2-124m").unwrap();
        assert_eq!((gpt2.model.seq_length, gpt2.train.grad_accum(&gpt2.model).unwrap()), (1024, 32));
        assert_eq!(gpt2.train.warmup_fraction * gpt2.train.max_steps as f64, 700.0);
        let quick = RunConfig::preset("quickstart").unwrap();
        // 2 layers of 2*64*(4*64 + 128) values and the final norm; the embedding waits for its tokenizer.
        assert_eq!(quick.model.param_count(), 2 * 2 * 64 * (4 * 64 + 128) + 128);
        assert_eq!(quick.stages().unwrap()[1].param_count(), 2 * 2 * 64 * (4 * 96 + 256) + 128);
    }
}
