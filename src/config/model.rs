//! The shape of a model, and what makes a shape impossible.
//!
//! Names are those of the official configurations. The parameters that follow from a shape are in `params`;
//! how a layer computes is the model module's matter.

use serde::{Deserialize, Serialize};

use super::{MAX_SIZE, fraction, in_range, not_negative, positive, require};
use crate::error::{Error, Result};

/// The widest attention head the kernels hold in registers and workgroup memory.
pub(crate) const MAX_HEAD_WIDTH: usize = 256;
/// Up to here heads may have any width; wider ones a multiple of [`WIDE_HEAD_STEP`].
const ANY_HEAD_WIDTH: usize = 128;
const WIDE_HEAD_STEP: usize = 16;

const MAX_LAYERS: usize = 1024;
const MAX_WIDTH: usize = 1 << 20;

/// Which of the two model families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// Every linear projection is attention over learnable parameter tokens (arXiv 2410.23168).
    Tokenformer,
    /// The baseline, which is GPT-NeoX: linear projections with biases and a GELU MLP.
    Transformer,
}

/// How the scores against the parameter tokens become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormActivation {
    /// `gelu(tau * a / (|a|_2 + eps))`, the default of the published configurations.
    L2NormGelu,
    /// `tau * gelu(a) / (|gelu(a)|_2 + eps)`.
    GeluL2Norm,
    /// `tau^2 * softmax(a)`: `tau = sqrt(N)` gives the official factor N.
    Softmax,
}

/// One projection of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// Queries of the causal attention.
    Query,
    /// Keys of the causal attention.
    Key,
    /// Values of the causal attention.
    Value,
    /// The projection of the heads' output back to the residual stream.
    Proj,
    /// The feed-forward part.
    Mlp,
}

impl Module {
    /// Every projection, in the order of a layer's parameters.
    pub const ALL: [Self; 5] = [Self::Query, Self::Key, Self::Value, Self::Proj, Self::Mlp];

    /// The module's name inside its layer, as in official checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "attention.query",
            Self::Key => "attention.key",
            Self::Value => "attention.value",
            Self::Proj => "attention.proj",
            Self::Mlp => "mlp",
        }
    }
}

/// Sizes and constants of one model.
///
/// ```
/// use tokenformer::config::{ModelConfig, Module};
///
/// let model = ModelConfig { vocab_size: 65, ..ModelConfig::default() };
/// model.validate()?;
/// assert_eq!(model.param_count(), 1_057_152);
/// // Keys and values of the feed-forward part of a layer: (512, 128) each.
/// assert_eq!((model.slots(Module::Mlp), model.hidden_size), (512, 128));
/// # Ok::<(), tokenformer::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// Architecture.
    pub arch: Arch,
    /// Rows of the embedding, V; 0 takes the tokenizer's number of tokens.
    pub vocab_size: usize,
    /// Layers, L.
    pub num_layers: usize,
    /// Width of the residual stream, C.
    pub hidden_size: usize,
    /// Attention heads, H; divides `hidden_size`. A head has at most 256 channels, above 128 a multiple of 16.
    pub num_attention_heads: usize,
    /// Tokens a sequence, T.
    pub seq_length: usize,
    /// Parameter tokens of each of query, key and value.
    pub qkv_slot_num: usize,
    /// Parameter tokens of the attention's output projection.
    pub proj_slot_num: usize,
    /// Parameter tokens of the feed-forward part.
    pub ffn_slot_num: usize,
    /// Width of the Transformer's MLP, F; 0 is `4 * hidden_size`. A TokenFormer has no such width.
    pub intermediate_size: usize,
    /// Whether attention and MLP of a Transformer's layer read the same x, as in GPT-J, GPT-NeoX and Pythia:
    /// `x + attn(ln1(x)) + mlp(ln2(x))`. Otherwise the MLP reads x after the attention was added to it.
    pub use_parallel_residual: bool,
    /// Whether query, key, value and output projection of a Transformer's attention have biases. A TokenFormer has none.
    pub attention_bias: bool,
    /// Whether the embedding is the output head as well. Otherwise the head is a parameter of its own, `embed_out.weight`.
    pub tie_word_embeddings: bool,
    /// Normalisation of the scores against the parameter tokens.
    pub norm_activation_type: NormActivation,
    /// Scale of query, key and value; absent is `sqrt(qkv_slot_num)` when the model is made.
    pub tau_qkv: Option<f64>,
    /// Scale of the output projection; absent is `sqrt(proj_slot_num)` when the model is made.
    pub tau_proj: Option<f64>,
    /// Scale of the feed-forward part; absent is `sqrt(ffn_slot_num)` when the model is made.
    pub tau_ffn: Option<f64>,
    /// Added to the L2 norms of the scores, in units of tau, so that a growth by `copy` keeps it in proportion. 0 is the
    /// published behaviour, but a row of zeros gives zeros.
    pub pattention_eps: f64,
    /// Use the tanh approximation of GELU, as the JAX variant does.
    pub gelu_tanh: bool,
    /// Share of each head's channels that rotate with position.
    pub rotary_pct: f64,
    /// Base of the rotary frequencies.
    pub rotary_emb_base: f64,
    /// Added to the variance in every LayerNorm.
    pub layernorm_epsilon: f64,
    /// Share that is dropped in training: of the embedding, of the attention weights, and of what attention and feed-forward
    /// part add to the residual stream. A run that goes on may change it.
    pub dropout: f64,
}

impl Default for ModelConfig {
    /// nanoGPT's laptop shape as a TokenFormer.
    fn default() -> Self {
        Self {
            arch: Arch::Tokenformer,
            vocab_size: 0,
            num_layers: 4,
            hidden_size: 128,
            num_attention_heads: 4,
            seq_length: 64,
            qkv_slot_num: 128,
            proj_slot_num: 128,
            ffn_slot_num: 512,
            intermediate_size: 0,
            use_parallel_residual: false,
            attention_bias: true,
            tie_word_embeddings: true,
            norm_activation_type: NormActivation::L2NormGelu,
            tau_qkv: None,
            tau_proj: None,
            tau_ffn: None,
            pattention_eps: 1e-7,
            gelu_tanh: false,
            rotary_pct: 0.25,
            rotary_emb_base: 10_000.0,
            layernorm_epsilon: 1e-5,
            dropout: 0.0,
        }
    }
}

impl ModelConfig {
    /// Parameter tokens of `module` in each layer, N.
    pub fn slots(&self, module: Module) -> usize {
        match module {
            Module::Query | Module::Key | Module::Value => self.qkv_slot_num,
            Module::Proj => self.proj_slot_num,
            Module::Mlp => self.ffn_slot_num,
        }
    }

    /// Scale of `module`: the stored number, or `sqrt(N)` while none is stored.
    pub fn tau(&self, module: Module) -> f64 {
        let stored = match module {
            Module::Query | Module::Key | Module::Value => self.tau_qkv,
            Module::Proj => self.tau_proj,
            Module::Mlp => self.tau_ffn,
        };
        stored.unwrap_or_else(|| (self.slots(module) as f64).sqrt())
    }

    /// Stores every scale as the number it is now, so that it no longer follows the slot numbers.
    pub fn freeze_tau(&mut self) {
        self.tau_qkv = Some(self.tau(Module::Query));
        self.tau_proj = Some(self.tau(Module::Proj));
        self.tau_ffn = Some(self.tau(Module::Mlp));
    }

    /// Takes the vocabulary from a tokenizer of `tokens` tokens where `vocab_size` is 0. A larger
    /// `vocab_size` stays: its extra rows are padding, ordinary rows that no text uses.
    ///
    /// # Errors
    /// A usage error when `vocab_size` is set and too small for the tokenizer.
    pub fn resolve_vocab(&mut self, tokens: usize) -> Result<()> {
        if self.vocab_size == 0 {
            self.vocab_size = tokens;
        }
        require(self.vocab_size >= tokens, || {
            format!(
                "vocab_size is {}, but the tokenizer has {tokens} tokens: raise it to {tokens} or set it to 0",
                self.vocab_size
            )
        })
    }

    /// Channels of one head, D.
    pub fn head_width(&self) -> usize {
        self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0)
    }

    /// Channels of each head that rotate: the whole part of `head_width * rotary_pct`. At 0, attention sees
    /// no positions.
    pub fn rotary_width(&self) -> usize {
        (self.head_width() as f64 * self.rotary_pct) as usize
    }

    /// Width of the Transformer's MLP, F.
    pub fn mlp_width(&self) -> usize {
        match self.intermediate_size {
            0 => self.hidden_size.saturating_mul(4),
            width => width,
        }
    }

    /// Checks that a model of this shape can exist. A `vocab_size` of 0 passes: see [`Self::resolve_vocab`].
    ///
    /// # Errors
    /// A usage error naming the setting, its value, the limit and the remedy.
    pub fn validate(&self) -> Result<()> {
        in_range("num_layers", self.num_layers, 1, MAX_LAYERS)?;
        in_range("hidden_size", self.hidden_size, 1, MAX_WIDTH)?;
        in_range("num_attention_heads", self.num_attention_heads, 1, MAX_WIDTH)?;
        in_range("seq_length", self.seq_length, 1, MAX_SIZE)?;
        if self.vocab_size != 0 {
            in_range("vocab_size", self.vocab_size, 2, MAX_SIZE)?;
        }
        match self.arch {
            Arch::Tokenformer => {
                in_range("qkv_slot_num", self.qkv_slot_num, 1, MAX_SIZE)?;
                in_range("proj_slot_num", self.proj_slot_num, 1, MAX_SIZE)?;
                in_range("ffn_slot_num", self.ffn_slot_num, 1, MAX_SIZE)?;
                self.refuse_options_of_a_transformer()?;
            }
            Arch::Transformer => in_range("intermediate_size", self.mlp_width(), 1, MAX_SIZE)?,
        }
        for (name, tau) in [("tau_qkv", self.tau_qkv), ("tau_proj", self.tau_proj), ("tau_ffn", self.tau_ffn)] {
            tau.map_or(Ok(()), |tau| positive(name, tau))?;
        }
        not_negative("pattention_eps", self.pattention_eps)?;
        positive("layernorm_epsilon", self.layernorm_epsilon)?;
        positive("rotary_emb_base", self.rotary_emb_base)?;
        fraction("rotary_pct", self.rotary_pct)?;
        require((0.0..1.0).contains(&self.dropout), || {
            format!(
                "dropout is {}, but is the share that is dropped: give a number from 0 to below 1, such as 0.1",
                self.dropout
            )
        })?;
        self.validate_heads()
    }

    fn refuse_options_of_a_transformer(&self) -> Result<()> {
        require(!self.use_parallel_residual, || {
            "use_parallel_residual is true, but the layers of a TokenFormer are sequential: leave it out, or use arch = \
             \"transformer\""
                .to_owned()
        })?;
        require(self.attention_bias, || {
            "attention_bias is false, but a TokenFormer has no biases that could go: leave it out, or use arch = \
             \"transformer\""
                .to_owned()
        })
    }

    fn validate_heads(&self) -> Result<()> {
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !self.heads_divide() {
            return Err(Error::usage(format!(
                "num_attention_heads {heads} does not divide hidden_size {width}: {}",
                self.fitting_heads()
            )));
        }
        if self.head_width() > MAX_HEAD_WIDTH {
            return Err(Error::usage(format!(
                "hidden_size {width} over num_attention_heads {heads} gives heads of {} channels, above the limit of \
                 {MAX_HEAD_WIDTH}: {}",
                self.head_width(),
                self.fitting_heads()
            )));
        }
        require(has_kernels(self.head_width()), || {
            format!(
                "hidden_size {width} over num_attention_heads {heads} gives heads of {} channels, but above \
                 {ANY_HEAD_WIDTH} their number must be a multiple of {WIDE_HEAD_STEP}: {}",
                self.head_width(),
                self.fitting_heads()
            )
        })?;
        require(self.rotary_width().is_multiple_of(2), || {
            format!(
                "rotary_pct {} of heads of {} channels rotates {} of them, but channels rotate in pairs: change \
                 rotary_pct to make that number even, or {}",
                self.rotary_pct,
                self.head_width(),
                self.rotary_width(),
                self.fitting_heads()
            )
        })
    }

    fn heads_divide(&self) -> bool {
        self.hidden_size.is_multiple_of(self.num_attention_heads)
    }

    /// The remedy for a head count that does not fit: the nearest ones that pass every check.
    fn fitting_heads(&self) -> String {
        let fits = |&heads: &usize| {
            let other = Self { num_attention_heads: heads, ..self.clone() };
            let rotates = other.rotary_width() > 0 || self.rotary_pct == 0.0;
            rotates && other.rotary_width().is_multiple_of(2)
        };
        let widths = (1..=MAX_HEAD_WIDTH).filter(|&width| has_kernels(width) && self.hidden_size.is_multiple_of(width));
        let heads: Vec<usize> = widths.map(|width| self.hidden_size / width).filter(fits).collect();
        let below = heads.iter().filter(|&&heads| heads < self.num_attention_heads).max();
        let above = heads.iter().filter(|&&heads| heads > self.num_attention_heads).min();
        match (below, above) {
            (Some(below), Some(above)) => format!("use num_attention_heads {below} or {above}"),
            (Some(heads), None) | (None, Some(heads)) => format!("use num_attention_heads {heads}"),
            (None, None) => "use another hidden_size, such as a multiple of 64".to_owned(),
        }
    }
}

/// Whether the kernels take heads of this width.
fn has_kernels(head_width: usize) -> bool {
    head_width <= ANY_HEAD_WIDTH || head_width.is_multiple_of(WIDE_HEAD_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut ModelConfig)) -> String {
        let mut model = ModelConfig::default();
        change(&mut model);
        model.validate().unwrap_err().to_string()
    }

    #[test]
    fn tau_follows_the_slots_until_frozen() {
        let mut model = ModelConfig { ffn_slot_num: 256, tau_proj: Some(3.0), ..ModelConfig::default() };
        assert_eq!(Module::ALL.map(|m| model.tau(m)), [128_f64.sqrt(), 128_f64.sqrt(), 128_f64.sqrt(), 3.0, 16.0]);
        model.freeze_tau();
        model.ffn_slot_num = 1024;
        assert_eq!((model.tau(Module::Mlp), model.tau(Module::Proj)), (16.0, 3.0));
    }

    #[test]
    fn heads_must_divide_and_the_nearest_are_named() {
        let text = refusal(|m| m.num_attention_heads = 5);
        assert_eq!(text, "num_attention_heads 5 does not divide hidden_size 128: use num_attention_heads 4 or 8");
        // 1 head would be 512 channels wide, and 3 does not divide: only counts that pass every check are named.
        let text = refusal(|m| (m.hidden_size, m.num_attention_heads) = (512, 1));
        assert!(text.contains("512 channels") && text.ends_with("use num_attention_heads 2"), "{text}");
        // 150 channels are below the limit, but above 128 they come in steps.
        let text = refusal(|m| (m.hidden_size, m.num_attention_heads) = (300, 2));
        assert!(text.contains("multiple of 16") && text.ends_with("use num_attention_heads 4"), "{text}");
        assert!(refusal(|m| m.num_attention_heads = 256).ends_with("use num_attention_heads 16"));
    }

    #[test]
    fn rotary_channels_come_in_pairs() {
        let model = ModelConfig { hidden_size: 80, ..ModelConfig::default() };
        assert_eq!((model.head_width(), model.rotary_width()), (20, 5));
        let text = model.validate().unwrap_err().to_string();
        assert!(text.contains("rotates 5 of them") && text.ends_with("use num_attention_heads 2 or 5"), "{text}");
        assert!(refusal(|m| m.rotary_pct = 1.5).contains("rotary_pct is 1.5"));
        assert!(refusal(|m| m.rotary_pct = f64::NAN).contains("rotary_pct is NaN"));
    }

    #[test]
    fn the_absurd_is_refused_without_a_panic() {
        let sizes: [fn(&mut ModelConfig, usize); 6] = [
            |m, n| m.num_layers = n,
            |m, n| m.hidden_size = n,
            |m, n| m.num_attention_heads = n,
            |m, n| m.seq_length = n,
            |m, n| m.qkv_slot_num = n,
            |m, n| m.ffn_slot_num = n,
        ];
        for set in sizes {
            for absurd in [0, usize::MAX] {
                let text = refusal(|m| set(m, absurd));
                assert!(text.contains(&format!("is {absurd}, but must be between 1 and")), "{text}");
            }
        }
        assert!(refusal(|m| m.vocab_size = 1).contains("between 2 and"));
        assert!(refusal(|m| m.tau_ffn = Some(0.0)).contains("tau_ffn is 0"));
        assert!(refusal(|m| m.layernorm_epsilon = f64::INFINITY).contains("layernorm_epsilon is inf"));
        assert!(ModelConfig { pattention_eps: 0.0, ..ModelConfig::default() }.validate().is_ok());
    }

    #[test]
    fn options_of_a_transformer_are_refused_elsewhere() {
        let text = refusal(|m| m.use_parallel_residual = true);
        assert!(
            text.starts_with("use_parallel_residual is true") && text.ends_with("arch = \"transformer\""),
            "{text}"
        );
        assert!(refusal(|m| m.attention_bias = false).starts_with("attention_bias is false"));
        let options = ModelConfig { use_parallel_residual: true, attention_bias: false, ..ModelConfig::default() };
        assert!(ModelConfig { arch: Arch::Transformer, ..options }.validate().is_ok());
        assert!(ModelConfig { tie_word_embeddings: false, ..ModelConfig::default() }.validate().is_ok());
    }

    #[test]
    fn slots_do_not_matter_to_a_transformer() {
        let model = ModelConfig { arch: Arch::Transformer, ffn_slot_num: 0, ..ModelConfig::default() };
        assert!(model.validate().is_ok());
    }

    #[test]
    fn the_vocabulary_comes_from_the_tokenizer_or_covers_it() {
        let mut model = ModelConfig::default();
        model.resolve_vocab(65).unwrap();
        assert_eq!(model.vocab_size, 65);
        let text = model.resolve_vocab(66).unwrap_err().to_string();
        assert!(text.contains("vocab_size is 65, but the tokenizer has 66 tokens"), "{text}");
    }
}
