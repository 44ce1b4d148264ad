//! Headers of checkpoints as trees of JSON, which can be wrong in every way, and sound ones to start from.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tokenformer::config::{ModelConfig, RunConfig};

/// JSON that may be wrong in ways a [`Value`] cannot.
#[derive(Debug, Clone)]
pub enum Node {
    /// A number, text or word as written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// A text that is JSON itself.
    Text(Box<Node>),
}

impl Node {
    /// The same as a tree; a text that begins as an object is taken apart too.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Array(list) => Self::List(list.iter().map(Self::of).collect()),
            Value::Object(map) => Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect()),
            Value::String(text) if text.starts_with('{') => {
                Self::Text(Box::new(Self::of(&serde_json::from_str(text).unwrap())))
            }
            scalar => Self::Scalar(scalar.to_string()),
        }
    }

    /// Appends it as JSON.
    pub fn write(&self, out: &mut String) {
        let quote = |text: &str| serde_json::to_string(text).unwrap();
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::List(list) => {
                out.push('[');
                list.iter().for_each(|node| {
                    node.write(out);
                    out.push(',');
                });
                close(out, ']');
            }
            Self::Map(map) => {
                out.push('{');
                map.iter().for_each(|(key, node)| {
                    out.push_str(&quote(key));
                    out.push(':');
                    node.write(out);
                    out.push(',');
                });
                close(out, '}');
            }
            Self::Text(node) => {
                let mut inside = String::new();
                node.write(&mut inside);
                out.push_str(&quote(&inside));
            }
        }
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The first value of a key, also inside a text.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Map(map) => map.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node),
            Self::Text(inside) => inside.get_mut(key),
            _ => None,
        }
    }

    /// A list of whole numbers.
    pub fn numbers(&self) -> Option<Vec<u64>> {
        let Self::List(list) = self else { return None };
        let number = |node: &Self| if let Self::Scalar(text) = node { text.parse().ok() } else { None };
        list.iter().map(number).collect()
    }
}

/// Puts the bracket in the place of the last comma, if there is one.
fn close(out: &mut String, bracket: char) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push(bracket);
}

/// The metadata of a checkpoint of a format.
fn metadata(format: u32, config: &Value, rows: &Value) -> Value {
    let growth = json!({
        "at_step": 7, "policy": {"init_keys": "zero"}, "slots_before": [1, 1, 1], "slots_after": [1, 1, 2],
        "params_before": 12, "params_after": 18, "max_logit_change": 0.0, "loss_before": "inf", "loss_after": 1.5,
        "before": {"name": "before-growth-00000007.safetensors", "sha256": "00"},
    });
    let cohort = json!({"born_step": 7, "lr_scale": 1.0, "frozen": false, "rows": rows});
    let meta = json!({
        "format": format, "step": 9, "tokens_seen": 99, "seed": 1, "config": config, "tokenizer": {"char": "ab"},
        "data": {"description": "corpus", "next_batch": 9}, "cohorts": [cohort], "lineage": [growth],
        "adapter": "llvmpipe", "kernels": {"NN 8x8x8": "lanes8-8x8-u1"},
        "loss_scale": {"scale": 1024.0, "good_steps": 3}, "plateau": {"best": "inf", "evaluations": 3},
        "best_val_loss": "NaN", "created_by": "tokenformer 0.1.0",
    });
    let version = format.to_string();
    let mut map = json!({"format": "pt", "step": "9", "tokenformer": meta.to_string(), "tokenformer_format": version});
    if let (2, Some(map)) = (format, map.as_object_mut()) {
        map.insert("crc32".to_owned(), json!("00000000"));
        map.insert("crc32_per_mib".to_owned(), json!(""));
    }
    map
}

/// A header whose offsets and checksums are still to come.
fn header(metadata: Option<Value>, tensors: impl IntoIterator<Item = (String, Vec<usize>, &'static str)>) -> Node {
    let entry = |shape: &[usize], dtype| json!({"dtype": dtype, "shape": shape, "data_offsets": [0, 0]});
    let tensors = tensors.into_iter().map(|(name, shape, dtype)| (name, Node::of(&entry(&shape, dtype))));
    let metadata = metadata.map(|metadata| ("__metadata__".to_owned(), Node::of(&metadata)));
    Node::Map(metadata.into_iter().chain(tensors).collect())
}

/// One that says little, in either format, one that a run goes on from, and published weights.
pub static HEADERS: LazyLock<[Node; 4]> = LazyLock::new(|| {
    let name = |prefix: &str, name: &str| format!("{prefix}{name}");
    let trained = ["", "optimizer.m.", "optimizer.v.", "optimizer.ema."];
    let small = |format| {
        let of = |p: &&str| [(name(p, "a"), vec![2, 3], "F32"), (name(p, "b.bias"), vec![3], "F32")];
        let metadata = metadata(format, &json!({"lr": 0.5, "a": [null, "é"]}), &json!({"a": [1, 2]}));
        header(Some(metadata), trained.iter().flat_map(of))
    };

    let mut run = RunConfig::preset("quickstart").unwrap();
    let model = ModelConfig { num_layers: 1, hidden_size: 2, num_attention_heads: 1, rotary_pct: 0.0, ..run.model };
    run.model = ModelConfig { qkv_slot_num: 1, proj_slot_num: 1, ffn_slot_num: 2, vocab_size: 2, ..model };
    let shapes = run.model.param_shapes();
    let whole = trained.iter().flat_map(|p| shapes.iter().map(move |(n, shape)| (name(p, n), shape.clone(), "F32")));
    let rows = json!({"layers.0.mlp.key_param_tokens": [1, 2]});
    let whole = header(Some(metadata(2, &serde_json::to_value(&run).unwrap(), &rows)), whole);

    let official = |ours: &str| tokenformer::exchange::official_name(ours, 1).unwrap();
    let published = header(None, shapes.iter().map(|(n, shape)| (official(n), shape.clone(), "F16")));
    [small(1), small(2), whole, published]
});
