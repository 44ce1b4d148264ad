//! What nanoGPT, Hugging Face, llm.c and mlx-lm call the settings of a run, and what is said to who uses their names.

/// A setting under the names of other programs.
pub(super) struct Synonym {
    /// What others call it, in lower case.
    names: &'static [&'static str],
    /// What to use here, after "unknown key ...: ".
    pub(super) answer: &'static str,
}

const fn synonym(names: &'static [&'static str], answer: &'static str) -> Synonym {
    Synonym { names, answer }
}

/// Names whose meaning is here under another name, or not at all.
static SYNONYMS: &[Synonym] = &[
    // The model.
    synonym(&["n_layer", "n_layers", "num_hidden_layers", "depth"], "it is model.num_layers here"),
    synonym(&["n_head", "n_heads", "num_heads"], "it is model.num_attention_heads here"),
    synonym(&["n_embd", "d_model", "hidden_dim", "dim", "embed_dim", "channels"], "it is model.hidden_size here"),
    synonym(
        &[
            "block_size",
            "sequence_length",
            "seq_len",
            "max_seq_len",
            "max_seq_length",
            "n_positions",
            "n_ctx",
            "max_position_embeddings",
            "context_length",
        ],
        "it is model.seq_length here",
    ),
    synonym(
        &["d_ff", "ffn_dim", "n_inner"],
        "it is model.intermediate_size in a Transformer, and model.ffn_slot_num (parameter tokens) in a TokenFormer",
    ),
    synonym(
        &["num_key_value_heads", "n_kv_head", "n_kv_heads"],
        "every head has keys and values of its own here: leave it out",
    ),
    synonym(&["rope_theta", "rope_base"], "it is model.rotary_emb_base here"),
    synonym(&["layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"], "it is model.layernorm_epsilon here"),
    synonym(
        &[
            "attn_pdrop",
            "resid_pdrop",
            "embd_pdrop",
            "dropout_rate",
            "dropout_prob",
            "drop_rate",
            "attention_dropout",
            "attention_probs_dropout_prob",
            "hidden_dropout",
            "hidden_dropout_prob",
            "resid_dropout",
            "embd_dropout",
        ],
        "it is model.dropout here, one share for embedding, attention weights and residual branches",
    ),
    synonym(&["lora_dropout"], "there are no adapters here: leave it out; model.dropout drops a share of activations"),
    synonym(
        &["bias", "use_bias"],
        "model.attention_bias is for the attention of model.arch = \"transformer\"; its other linear layers always have biases, a \
         TokenFormer has none",
    ),
    synonym(&["attn_bias", "qkv_bias", "use_bias_in_attn_linear"], "it is model.attention_bias here"),
    synonym(&["parallel_residual", "gpt_j_residual", "parallel_attn"], "it is model.use_parallel_residual here"),
    synonym(
        &["tie_embeddings", "tie_weights", "weight_tying", "tied_embeddings", "tie_lm_head"],
        "it is model.tie_word_embeddings here",
    ),
    synonym(
        &["no_weight_tying", "untie_embeddings_and_output_weights"],
        "it is model.tie_word_embeddings here, which is the opposite",
    ),
    synonym(
        &["hidden_act", "hidden_activation", "activation_function"],
        "it is always GELU here: model.gelu_tanh is false for gelu, and true for gelu_new, gelu_fast and gelu_pytorch_tanh",
    ),
    // Training.
    synonym(&["learning_rate", "max_lr", "peak_lr"], "it is train.lr here"),
    synonym(
        &["max_iters", "iters", "num_iterations", "num_steps", "n_steps", "steps", "max_train_steps"],
        "it is train.max_steps here, or --steps, counted in updates of the parameters",
    ),
    synonym(
        &["epochs", "num_train_epochs", "num_epochs", "epoch"],
        "it is --epochs N here, which sets train.max_steps",
    ),
    synonym(
        &[
            "gradient_accumulation_steps",
            "grad_accumulation_steps",
            "grad_accum",
            "grad_accum_steps",
            "accumulation_steps",
        ],
        "set train.total_batch_tokens to it x train.batch_size x model.seq_length, which counts the tokens of an update",
    ),
    synonym(&["total_batch_size"], "it is train.total_batch_tokens here, the tokens of an update"),
    synonym(
        &["per_device_train_batch_size", "train_batch_size", "micro_batch_size", "device_batch_size", "bs"],
        "it is train.batch_size here, the sequences of a micro-batch",
    ),
    synonym(
        &["warmup_iters", "warmup_steps", "warmup_iterations", "num_warmup_steps", "warmup"],
        "it is train.warmup_fraction here, a share of train.max_steps: 0.05 for 100 of 2000",
    ),
    synonym(&["warmup_ratio"], "it is train.warmup_fraction here"),
    synonym(
        &["lr_decay_iters", "lr_decay_steps", "decay_steps"],
        "the rate reaches train.min_lr at train.max_steps here: leave it out",
    ),
    synonym(
        &["decay_lr", "lr_scheduler_type", "lr_scheduler"],
        "it is train.lr_schedule here: \"cosine\", \"wsd\" or \"constant\"",
    ),
    synonym(
        &["final_learning_rate_frac", "min_lr_ratio", "learning_rate_decay_frac"],
        "it is train.min_lr here, a rate and not a share of train.lr",
    ),
    synonym(&["adam_beta1"], "it is train.beta1 here"),
    synonym(&["adam_beta2"], "it is train.beta2 here"),
    synonym(&["adam_epsilon", "eps", "epsilon"], "it is train.adam_eps here"),
    synonym(&["max_grad_norm", "gradient_clipping", "clip_grad", "clip_grad_norm"], "it is train.grad_clip here"),
    synonym(&["optim", "optimizer_type"], "it is train.optimizer here, \"adamw\" or \"muon\""),
    synonym(&["ema", "ema_beta", "ema_rate", "use_ema"], "it is train.ema_decay here, such as 0.999"),
    synonym(
        &["dtype", "fp16", "bf16", "mixed_precision", "torch_dtype"],
        "it is train.precision here, \"f32\" or \"f16\"",
    ),
    synonym(
        &["gradient_checkpointing", "grad_checkpoint", "activation_checkpointing"],
        "it is train.recompute here, true or false",
    ),
    synonym(&["eval_iters", "val_batches", "val_max_steps"], "it is train.eval_batches here"),
    synonym(&["eval_steps", "steps_per_eval", "val_loss_every", "eval_every"], "it is train.eval_interval here"),
    synonym(&["save_steps", "save_every", "checkpoint_every", "save_interval"], "it is train.checkpoint_interval here"),
    synonym(&["save_total_limit"], "it is train.keep_last here"),
    synonym(&["logging_steps", "steps_per_report", "log_every"], "it is train.log_interval here"),
    synonym(&["sample_every"], "it is train.sample_interval here"),
    // Files and devices.
    synonym(
        &["dataset", "dataset_name", "data_dir", "train_file", "input_bin", "train_data", "train_path"],
        "it is data.path here, or --data: a text file or a token shard",
    ),
    synonym(
        &["tokenizer_name", "tokenizer_name_or_path", "tokenizer_path", "tokenizer_file", "tokenizer_type", "encoding"],
        "it is data.tokenizer here, or --tokenizer: gpt2, cl100k, o200k, bpe:4096, byte, char, or a tokenizer.json",
    ),
    synonym(&["validation_file", "input_val_bin", "val_data", "val_file"], "it is data.val_path here"),
    synonym(
        &["output_dir", "save_dir", "checkpoint_dir", "adapter_path", "run_dir"],
        "it is out_dir here, or --out, the directory of the run",
    ),
    synonym(&["init_from", "resume_from_checkpoint", "resume_adapter_file"], "go on with `train --resume RUN`"),
    synonym(&["device", "device_map"], "the device is chosen with --adapter: `tokenformer devices` lists them"),
    synonym(&["compile", "torch_compile"], "kernels are always compiled here: leave it out"),
    synonym(
        &["wandb_log", "wandb_project", "report_to", "wandb_run_name"],
        "every figure of a run is in its metrics.jsonl, and with train.tensorboard = true in a file for TensorBoard: leave it out",
    ),
    synonym(&["preset"], "a preset is named by --preset, or at the top of a file as preset = \"NAME\""),
];

/// The answer to a name of another program, in any spelling: `--n-layer`, `N_LAYER`.
pub(super) fn exact(name: &str) -> Option<&'static Synonym> {
    SYNONYMS.iter().find(|synonym| synonym.names.contains(&name))
}

/// The nearest name of another program, how alike it is, and the answer to it.
pub(super) fn nearest(likeness: impl Fn(&str) -> f64) -> Option<(&'static str, f64, &'static Synonym)> {
    let all = SYNONYMS.iter().flat_map(|synonym| synonym.names.iter().map(move |name| (*name, synonym)));
    let like = all.map(|(name, synonym)| (name, likeness(name), synonym));
    like.max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_stands_once_and_in_lower_case() {
        let names: Vec<&str> = SYNONYMS.iter().flat_map(|synonym| synonym.names).copied().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(
            names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        );
    }
}
