//! The model card of an export: what the model is, how it came to be, and how it is used.

use std::path::Path;

use serde::Serialize;

use super::shards::WRITER;
use super::source::Source;
use super::values::Stored;
use crate::checkpoint::FileDigest;
use crate::config::{Arch, ModelConfig, TrainConfig};
use crate::console::legible;
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::report::escape::{clipped, markdown};

/// Most characters of a name or description that a run gives itself.
const LONGEST: usize = 400;

/// The settings that made the model. Not where its data lay, which is nobody else's matter.
#[derive(Serialize)]
struct Settings<'a> {
    model: &'a ModelConfig,
    train: &'a TrainConfig,
}

/// The README of the export of `source` to `out`.
pub(super) fn text(source: &Source, out: &Path, stored: Stored) -> Result<String> {
    let (meta, model) = (source.meta(), &source.config.model);
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (kind, tag, trusted) = match model.arch {
        Arch::Tokenformer => {
            ("[TokenFormer](https://arxiv.org/abs/2410.23168)", "tokenformer", ", trust_remote_code=True")
        }
        Arch::Transformer => ("Transformer (GPT-NeoX)", "gpt_neox", ""),
    };
    let mut text = format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- {tag}\n---\n\n# {}\n\n\
         A {kind} language model of {} parameters, written by {WRITER} from the checkpoint of step {}, as {}.\n\n",
        shown(&name),
        model.param_count(),
        meta.step,
        stored.name()
    );
    text.push_str(&format!(
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         model = AutoModelForCausalLM.from_pretrained(\".\"{trusted})\n"
    ));
    match &source.tokenizer {
        Some(_) => text.push_str(&format!(
            "tokenizer = AutoTokenizer.from_pretrained(\".\"{trusted})\n\
             inputs = tokenizer(\"Once\", return_tensors=\"pt\")\n\
             print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))\n```\n"
        )),
        None => text.push_str("```\n\nIt was trained on tokens, and has no tokenizer of its own.\n"),
    }
    text.push_str("\n## Training\n\n| | |\n|---|---|\n");
    let mut row = |what: &str, value: String| text.push_str(&format!("| {what} | {} |\n", value.replace('|', "\\|")));
    row("Optimizer steps", meta.step.to_string());
    row("Tokens", meta.tokens_seen.to_string());
    if source.is_averaged() {
        let decay = source.config.train.ema_decay;
        row("Weights", format!("exponential moving average of the training weights, decay {decay}"));
    }
    row("Data", shown(&meta.data.description));
    if let Some(tokenizer) = &source.tokenizer {
        row("Tokenizer", shown(&Tokenizer::describe(tokenizer)));
    }
    if let Some(best) = meta.best_val_loss.filter(|loss| loss.is_finite()) {
        let at = meta.best_step.map_or_else(String::new, |step| format!(", after step {step}"));
        row("Best validation loss", format!("{best:.4} nats/token{at}"));
    }
    row("Device", shown(&meta.adapter));
    row("Trained by", shown(&meta.created_by));
    text.push_str("\n## Lineage\n\n");
    if meta.lineage.is_empty() {
        text.push_str("It has had this size from its first step on.\n");
    }
    for record in &meta.lineage {
        text.push_str(&format!("- {}", shown(&record.describe())));
        if let Some(FileDigest { name, sha256 }) = &record.file_before {
            text.push_str(&format!(" (before it: {}, SHA-256 {})", shown(name), shown(sha256)));
        }
        text.push('\n');
    }
    let settings = toml::to_string(&Settings { model, train: &source.config.train });
    let settings = settings.map_err(|e| Error::defect(format!("settings cannot be written as TOML: {e}")))?;
    text.push_str(&format!("\n## Settings\n\n```toml\n{settings}```\n"));
    Ok(text)
}

/// A text of the run, which may hold anything.
fn shown(text: &str) -> String {
    clipped(&markdown(&legible(text)), LONGEST, "...")
}
