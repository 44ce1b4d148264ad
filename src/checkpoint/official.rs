//! Published TokenFormer weights: their names, and reading them from a safetensors file.
//!
//! The published files number the modules of a pipeline: `sequential.0` is the embedding, layer `i` of `L` is
//! `sequential.{i+2}` and the final norm `sequential.{L+3}`; 1 and L+2 have no parameters. The output head is tied to
//! the embedding. Sizes are inferred from shapes. The number of heads cannot be, and what the files do not
//! say (normalisation, rotary share) is the caller's to set.

use std::collections::BTreeMap;
use std::path::Path;

use super::read::TensorFile;
use super::storage::Files;
use crate::array::HostTensor;
use crate::error::{Error, Result};

/// The two tensors of a Pattention.
const TOKENS: [&str; 2] = ["key_param_tokens", "value_param_tokens"];
/// The Pattentions of a layer, and which of the three slot numbers each has: qkv, proj, ffn.
const PATTENTIONS: [(&str, usize); 5] =
    [("attention.query", 0), ("attention.key", 0), ("attention.value", 0), ("attention.proj", 1), ("mlp", 2)];

/// Tensor name to shape.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Published weights under this crate's names, and the sizes their shapes imply.
#[derive(Debug, Clone, PartialEq)]
pub struct OfficialModel {
    /// Parameters by our name, widened to f32.
    pub params: BTreeMap<String, HostTensor>,
    /// Number of layers.
    pub num_layers: usize,
    /// Width of the model.
    pub hidden_size: usize,
    /// Rows of the embedding, padding rows included.
    pub vocab_size: usize,
    /// Parameter tokens of each query, key and value Pattention.
    pub qkv_slot_num: usize,
    /// Parameter tokens of each output projection.
    pub proj_slot_num: usize,
    /// Parameter tokens of each feed-forward Pattention.
    pub ffn_slot_num: usize,
}

/// The published name of our parameter `ours` in a model of `layers` layers; `None` if it has none.
///
/// `layers.0.mlp.key_param_tokens` becomes `sequential.2.mlp.key_param_tokens`.
pub fn official_name(ours: &str, layers: usize) -> Option<String> {
    match ours {
        "word_embeddings.weight" => return Some("sequential.0.word_embeddings.weight".to_owned()),
        "norm.weight" | "norm.bias" => return Some(format!("sequential.{}.{ours}", layers.checked_add(3)?)),
        _ => {}
    }
    let (index, rest) = ours.strip_prefix("layers.")?.split_once('.')?;
    let layer: usize = index.parse().ok()?;
    let (module, tokens) = rest.rsplit_once('.')?;
    let known = TOKENS.contains(&tokens) && PATTENTIONS.iter().any(|(name, _)| *name == module);
    (known && layer < layers && layer.to_string() == index).then(|| format!("sequential.{}.{rest}", layer + 2))
}

/// Reads published weights (F32, F16 or BF16) from a safetensors file.
///
/// # Errors
/// An input error if the file cannot be read, lacks a tensor, has one that does not belong, or one whose shape
/// disagrees with the others; the tensor is named.
pub fn read_official(path: &Path) -> Result<OfficialModel> {
    let refuse =
        |what: String| Error::input(format!("{} is not a published TokenFormer checkpoint: {what}", path.display()));
    let file = TensorFile::open(&Files, path)?;
    let shapes: Shapes = file.entries().into_iter().map(|e| (e.name, e.shape)).collect();
    let num_layers = count_layers(&shapes).map_err(refuse)?;
    let names = official_names(num_layers);
    if let Some(extra) = shapes.keys().find(|name| !names.contains_key(*name)) {
        return Err(refuse(format!("tensor {extra:?} has no place in a model of {num_layers} layers")));
    }
    if let Some(missing) = names.keys().find(|name| !shapes.contains_key(*name)) {
        return Err(refuse(format!("tensor {missing:?} of its {num_layers} layers is missing")));
    }
    let Sizes { vocab_size, hidden_size, slots } = infer_sizes(&shapes, num_layers).map_err(refuse)?;
    let ours = |(official, tensor)| Some((names.get(&official)?.clone(), tensor));
    let params = file.read()?.into_iter().filter_map(ours).collect();
    let [qkv_slot_num, proj_slot_num, ffn_slot_num] = slots;
    Ok(OfficialModel { params, num_layers, hidden_size, vocab_size, qkv_slot_num, proj_slot_num, ffn_slot_num })
}

/// The number of layers, from the place of the final norm.
pub(crate) fn count_layers(shapes: &Shapes) -> Result<usize, String> {
    let place = |name: &String| name.strip_prefix("sequential.")?.strip_suffix(".norm.weight")?.parse::<usize>().ok();
    let layers = shapes.keys().find_map(place).and_then(|place| place.checked_sub(3));
    match layers {
        // A layer has ten tensors: a larger claim would only list names that cannot be there.
        Some(layers) if layers > 0 && layers <= shapes.len() => Ok(layers),
        Some(layers) => Err(format!("its final norm is placed after {layers} layers, it has {} tensors", shapes.len())),
        None => Err("it has no tensor \"sequential.<layers + 3>.norm.weight\"".to_owned()),
    }
}

/// Published name to our name, for every tensor of a model.
fn official_names(layers: usize) -> BTreeMap<String, String> {
    let pattention = |layer| {
        let tokens = move |(module, _)| TOKENS.map(|tokens| format!("layers.{layer}.{module}.{tokens}"));
        PATTENTIONS.into_iter().flat_map(tokens)
    };
    let outer = ["word_embeddings.weight", "norm.weight", "norm.bias"].map(str::to_owned);
    let ours = outer.into_iter().chain((0..layers).flat_map(pattention));
    ours.filter_map(|ours| Some((official_name(&ours, layers)?, ours))).collect()
}

/// Sizes that are the same throughout a model.
struct Sizes {
    vocab_size: usize,
    hidden_size: usize,
    /// qkv, proj, ffn.
    slots: [usize; 3],
}

/// Takes every size from the first tensor that has it, then compares all others with it.
fn infer_sizes(shapes: &Shapes, layers: usize) -> Result<Sizes, String> {
    let official = |ours: &str| official_name(ours, layers).unwrap_or_default();
    let shape = |name: &str| shapes.get(name).map(Vec::as_slice).unwrap_or_default();
    let embedding = official("word_embeddings.weight");
    let &[vocab_size, hidden_size] = shape(&embedding) else {
        return Err(format!("tensor {embedding:?} has shape {:?}, not [vocabulary, width]", shape(&embedding)));
    };
    let require = |name: &str, want: &[usize], source: &str| match shape(name) {
        got if got == want => Ok(()),
        got => Err(format!("tensor {name:?} has shape {got:?}, but by {source:?} it should be {want:?}")),
    };
    for name in ["norm.weight", "norm.bias"] {
        require(&official(name), &[hidden_size], &embedding)?;
    }
    let mut slots: [Option<(usize, String)>; 3] = [const { None }; 3];
    for layer in 0..layers {
        for (module, kind) in PATTENTIONS {
            for tokens in TOKENS {
                let name = official(&format!("layers.{layer}.{module}.{tokens}"));
                let Some(slot) = slots.get_mut(kind) else { continue };
                let first = || (shape(&name).first().copied().unwrap_or_default(), embedding.clone());
                let (count, source) = slot.get_or_insert_with(first);
                require(&name, &[*count, hidden_size], source)?;
                if *source == embedding {
                    *source = name;
                }
            }
        }
    }
    Ok(Sizes { vocab_size, hidden_size, slots: slots.map(|slot| slot.map_or(0, |(count, _)| count)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

    const LAYERS: usize = 2;

    /// A model of 2 layers, width 4, 7 words, and 3, 5 and 6 slots, under the published names written out.
    fn shapes() -> Shapes {
        let mut shapes = BTreeMap::from([
            ("sequential.0.word_embeddings.weight".to_owned(), vec![7, 4]),
            ("sequential.5.norm.weight".to_owned(), vec![4]),
            ("sequential.5.norm.bias".to_owned(), vec![4]),
        ]);
        for place in [2, 3] {
            let slots = [("query", 3), ("key", 3), ("value", 3), ("proj", 5)];
            let attention = slots.map(|(name, slots)| (format!("attention.{name}"), slots));
            for (module, slots) in attention.into_iter().chain([("mlp".to_owned(), 6)]) {
                shapes.insert(format!("sequential.{place}.{module}.key_param_tokens"), vec![slots, 4]);
                shapes.insert(format!("sequential.{place}.{module}.value_param_tokens"), vec![slots, 4]);
            }
        }
        shapes
    }

    /// Writes tensors of these shapes as halves, all of value 1.5, and reads them.
    fn read(shapes: &Shapes) -> Result<OfficialModel> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let data = 0x3e00_u16.to_le_bytes().repeat(64);
        let views = shapes.iter().map(|(name, shape)| {
            let bytes = &data[..2 * shape.iter().product::<usize>()];
            (name, TensorView::new(Dtype::F16, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, file.path()).unwrap();
        read_official(file.path())
    }

    #[test]
    fn a_published_model_is_renamed_and_measured() {
        let model = read(&shapes()).unwrap();
        let slots = (model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num);
        assert_eq!((model.num_layers, model.hidden_size, model.vocab_size, slots), (2, 4, 7, (3, 5, 6)));
        assert_eq!(model.params.len(), shapes().len());
        for (ours, tensor) in &model.params {
            assert_eq!(tensor.shape, shapes()[&official_name(ours, LAYERS).unwrap()]);
            assert!(tensor.data.iter().all(|&x| x == 1.5));
        }
        assert!(model.params.contains_key("layers.1.attention.proj.value_param_tokens"));
    }

    #[test]
    fn only_our_own_names_have_a_published_one() {
        let named = |ours| official_name(ours, LAYERS);
        assert_eq!(named("layers.1.mlp.key_param_tokens").unwrap(), "sequential.3.mlp.key_param_tokens");
        assert_eq!(named("norm.bias").unwrap(), "sequential.5.norm.bias");
        for ours in ["layers.2.mlp.key_param_tokens", "layers.01.mlp.key_param_tokens", "layers.0.mlp.bias", "x"] {
            assert_eq!(named(ours), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |spoil: &dyn Fn(&mut Shapes)| {
            let mut shapes = shapes();
            spoil(&mut shapes);
            let error = read(&shapes).unwrap_err().to_string();
            error.split_once("checkpoint: ").unwrap().1.to_owned()
        };
        let name = "sequential.3.mlp.value_param_tokens";
        let source = "sequential.2.mlp.key_param_tokens";
        assert_eq!(
            refused(&|s| drop(s.insert(name.to_owned(), vec![5, 4]))),
            format!("tensor {name:?} has shape [5, 4], but by {source:?} it should be [6, 4]")
        );
        assert_eq!(refused(&|s| drop(s.remove(name))), format!("tensor {name:?} of its 2 layers is missing"));
        assert_eq!(
            refused(&|s| drop(s.insert("sequential.6.final_linear.weight".to_owned(), vec![7, 4]))),
            "tensor \"sequential.6.final_linear.weight\" has no place in a model of 2 layers"
        );
        assert_eq!(
            refused(&|s| drop(s.insert("sequential.0.word_embeddings.weight".to_owned(), vec![7]))),
            "tensor \"sequential.0.word_embeddings.weight\" has shape [7], not [vocabulary, width]"
        );
        let far = refused(&|s| drop(s.insert("sequential.18446744073709551615.norm.weight".to_owned(), vec![4])));
        assert!(far.starts_with("its final norm is placed after"), "{far}");
        assert!(refused(&|s| s.clear()).starts_with("it has no tensor"));
    }
}
