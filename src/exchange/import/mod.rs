//! Models of other programs as checkpoints of this one.
//!
//! | file | idea |
//! |---|---|
//! | `bare` | models of which a file says nothing but tensors: the published TokenFormers |
//! | `exported` | what this program exported |
//! | `gpt_neox` | GPT-NeoX and Pythia, with their `config.json` |
//! | `own` | checkpoints of this program that another one changed |
//! | `official` | names of published weights |
//! | `fit` | whether a file has the tensors of a model |
//!
//! Opening says what the model is, or why it is none. Values are read when the checkpoint is written, a tensor at a time.

mod bare;
mod exported;
mod fit;
mod gpt_neox;
mod official;
mod own;

pub use official::official_name;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::piece::Piece;
use super::weights::{Place, Weights};
use crate::array::HostTensor;
use crate::checkpoint::{FileDigest, write_made};
use crate::config::{ModelConfig, RunConfig, TokenizerKind};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use crate::train::growth::{GrowthRecord, Import};
use crate::train::{DataPosition, Meta};

/// Tokens of one update of a model that was imported, at most: sequences are long, and a device has to hold them.
const TOKENS_OF_AN_UPDATE: usize = 4096;
/// Learning rate of a model that was trained already: lower than that of a new one.
const LR: f64 = 1e-4;

/// What a file may not say of its model.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Attention heads.
    pub heads: Option<usize>,
    /// Tokens of a sequence.
    pub seq_length: Option<usize>,
    /// What makes tokens of text.
    pub tokenizer: Option<TokenizerKind>,
}

impl Options {
    /// Refuses heads that contradict what a model says itself.
    fn check_heads(&self, path: &Path, model: &ModelConfig) -> Result<()> {
        let Some(heads) = self.heads.filter(|heads| *heads != model.num_attention_heads) else { return Ok(()) };
        Err(Error::usage(format!(
            "--heads is {heads}, but {} says that its model has {}: leave --heads out",
            path.display(),
            model.num_attention_heads
        )))
    }
}

/// A model of another program, of which no value has been read.
#[derive(Debug)]
pub struct Imported {
    path: PathBuf,
    weights: Weights,
    found: Found,
    tokenizer: Option<Tokenizer>,
    /// Parts of tensors that were read for another part, until they are asked for.
    parts: RefCell<BTreeMap<String, HostTensor>>,
    /// Files beside the weights that say what the model is.
    beside: Vec<PathBuf>,
    lineage: Vec<GrowthRecord>,
}

/// What tensors were found to be.
#[derive(Debug)]
struct Found {
    model: ModelConfig,
    /// How each parameter is made.
    takes: BTreeMap<String, Take>,
    /// What it is, in words.
    form: String,
    /// What no file said, a sentence each.
    assumed: Vec<String>,
}

/// How a parameter is made of a tensor.
#[derive(Debug)]
enum Take {
    /// It is the tensor of this name.
    Whole(String),
    /// It is a part of the tensor of this name.
    Part(String, Rc<Piece>),
}

impl Take {
    fn from(&self) -> &str {
        match self {
            Self::Whole(name) | Self::Part(name, _) => name,
        }
    }
}

/// Looks at the model in a file or directory.
///
/// # Errors
/// Files that cannot be read or are no model of this program; a sentence that names what does not fit.
pub fn open(path: &Path, options: &Options) -> Result<Imported> {
    let place = Place::find(path)?;
    let weights = Weights::open(&place)?;
    let shapes = weights.shapes();
    let mut beside = Vec::new();
    let (found, own_tokenizer, lineage) = if let Some(meta) = weights.own() {
        own::model(path, meta, &shapes, options)?
    } else if let Some(prefix) = bare::published_prefix(&shapes) {
        (bare::published(path, &prefix, &shapes, options)?, None, Vec::new())
    } else if let Some(config) = place.text(gpt_neox::CONFIG)? {
        beside.extend(place.beside(gpt_neox::CONFIG));
        let found = match exported::config_of(&config) {
            Some(fields) => exported::of_config(path, fields, &shapes, options)?,
            None => gpt_neox::model(path, &config, &shapes, options)?,
        };
        (found, None, Vec::new())
    } else if let Some(settings) = weights.settings() {
        (exported::of_settings(path, settings.clone(), &shapes, options)?, None, Vec::new())
    } else if bare::is_own(&shapes) {
        (bare::own(path, &shapes, options)?, None, Vec::new())
    } else {
        let first = shapes.keys().next().map_or_else(String::new, |name| format!(", such as {name:?}"));
        return Err(Error::input(format!(
            "{} has {} tensors{first}, and no config.json beside them that says of what model: give the directory of a GPT-NeoX \
             or Pythia model, or the weights of a TokenFormer",
            path.display(),
            shapes.len()
        )));
    };
    let model = &found.model;
    model.validate().map_err(|cause| Error::input(format!("{}: {cause}", path.display())))?;
    for from in found.takes.values().map(Take::from) {
        let wrong = weights.kind(from).map(|kind| kind.check());
        wrong
            .unwrap_or(Ok(()))
            .map_err(|what| Error::input(format!("tensor {from:?} of {} {what}", path.display())))?;
    }
    let tokenizer = match (&options.tokenizer, own_tokenizer, place.beside("tokenizer.json")) {
        (Some(kind), _, _) => Some(asked(kind)?),
        (None, Some(own), _) => Some(own),
        (None, None, Some(file)) => {
            let known = Place::short_text(&file)?.and_then(|json| exported::tokenizer(&json));
            let tokenizer = known.map_or_else(|| Tokenizer::of(&TokenizerKind::File(file.clone()), &[]), Ok)?;
            beside.push(file);
            Some(tokenizer)
        }
        (None, None, None) => None,
    };
    if let Some(tokens) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|tokens| *tokens > model.vocab_size) {
        return Err(Error::input(format!(
            "{} has {} rows of vocabulary, but its tokenizer {tokens} tokens: give the tokenizer that it was trained with, with \
             --tokenizer",
            path.display(),
            model.vocab_size
        )));
    }
    let parts = RefCell::default();
    Ok(Imported { path: path.to_path_buf(), weights, found, tokenizer, parts, beside, lineage })
}

/// The tokenizer that was asked for.
fn asked(kind: &TokenizerKind) -> Result<Tokenizer> {
    match kind {
        TokenizerKind::Char | TokenizerKind::Bpe(_) => Err(Error::usage(format!(
            "--tokenizer is {kind}, which is made of a text, but an imported model has the tokenizer it was trained with: give its \
             tokenizer.json, or byte, gpt2, cl100k or o200k"
        ))),
        kind => Tokenizer::of(kind, &[]),
    }
}

impl Imported {
    /// What the model is.
    pub fn model(&self) -> &ModelConfig {
        &self.found.model
    }

    /// What makes its tokens, if that is known.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// What form the files have, in words.
    pub fn form(&self) -> &str {
        &self.found.form
    }

    /// What no file said, a sentence each.
    pub fn assumed(&self) -> &[String] {
        &self.found.assumed
    }

    /// A parameter under its name in this program.
    ///
    /// # Errors
    /// Values that cannot be read.
    pub fn parameter(&self, name: &str) -> Result<HostTensor> {
        let take =
            self.found.takes.get(name).ok_or_else(|| Error::defect(format!("nothing makes parameter {name}")))?;
        let Take::Part(from, piece) = take else { return self.weights.read(take.from()) };
        if let Some(part) = self.parts.borrow_mut().remove(name) {
            return Ok(part);
        }
        let split = piece.split(self.weights.read(from)?)?;
        let mut parts = self.parts.borrow_mut();
        parts.extend(split);
        parts.remove(name).ok_or_else(|| Error::defect(format!("{from} has no part {name}")))
    }

    /// Writes the model as a checkpoint at step 0, without moments; at most one tensor is held twice. What is said of where it
    /// is from.
    ///
    /// # Errors
    /// Values that cannot be read, a file that cannot be written.
    pub fn write(&self, output: &Path) -> Result<Import> {
        let mut files = self.weights.digests()?;
        for path in &self.beside {
            files.push(FileDigest::read(path)?);
        }
        // `.` and `..` have no name of their own. A link does: what it leads to may be named by a hash.
        let real = || self.path.canonicalize().ok()?.file_name().map(OsStr::to_owned);
        let name = self.path.file_name().map(OsStr::to_owned).or_else(real);
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        let import = Import { name, form: self.found.form.clone(), files };
        let json = |e| Error::defect(format!("an imported model cannot be stored: {e}"));
        let config = self.config(output);
        let tokenizer = self.tokenizer.as_ref().map(serde_json::to_value).transpose().map_err(json)?;
        let meta = Meta {
            step: 0,
            tokens_seen: 0,
            seed: config.train.seed,
            config: serde_json::to_value(&config).map_err(json)?,
            tokenizer,
            data: DataPosition { description: "none since the import".to_owned(), ..DataPosition::default() },
            cohorts: Vec::new(),
            lineage: self.lineage.clone(),
            imported: Some(import.clone()),
            adapter: "no adapter".to_owned(),
            kernels: BTreeMap::new(),
            loss_scale: None,
            losses: Default::default(),
            plateau: Default::default(),
            best_val_loss: None,
            best_step: None,
            seconds: 0.0,
            created_by: concat!("tokenformer ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let shapes = self.found.model.param_shapes().into_iter().collect();
        write_made(output, &meta, &shapes, &|name| self.parameter(name))?;
        Ok(import)
    }

    /// Settings to train it further by, in a run named as the file.
    fn config(&self, output: &Path) -> RunConfig {
        let mut config = RunConfig { model: self.found.model.clone(), ..RunConfig::default() };
        config.out_dir = PathBuf::from("runs").join(output.file_stem().unwrap_or_default());
        config.train.batch_size =
            (TOKENS_OF_AN_UPDATE / config.model.seq_length.max(1)).clamp(1, config.train.batch_size);
        (config.train.lr, config.train.min_lr) = (LR, LR / 10.0);
        config
    }
}
