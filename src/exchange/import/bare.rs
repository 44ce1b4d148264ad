//! Models of which a file says nothing but tensors: the published TokenFormers, and checkpoints of this program whose metadata
//! another program dropped. Sizes are those of the shapes. What no shape says is asked for, or assumed and said.

use super::fit::{self, Shapes};
use super::official::{count_layers, official_name};
use super::{Found, Options, Take};
use crate::config::{Arch, EMBEDDING, HEAD, Linear, ModelConfig, Module, Role};
use crate::error::{Error, Result};
use std::path::Path;

/// What the name of the embedding of a published model ends with.
const PUBLISHED: &str = "sequential.0.word_embeddings.weight";
/// Layers, width and heads of the published models.
const SIZES: [(&str, usize, usize, usize); 4] =
    [("150M", 12, 768, 12), ("450M", 24, 1024, 16), ("900M", 32, 1280, 16), ("1.5B", 40, 1536, 16)];
/// Tokens of a sequence that the published models were trained on.
const SEQ_LENGTH: usize = 2048;

/// What comes before the names of a published model in a file, if there is one: nothing, `module.`, or another key of a
/// checkpoint of training.
pub(super) fn published_prefix(shapes: &Shapes) -> Option<String> {
    shapes.keys().filter_map(|name| name.strip_suffix(PUBLISHED)).min_by_key(|prefix| prefix.len()).map(str::to_owned)
}

/// A published TokenFormer, whose names have `prefix` before them.
///
/// # Errors
/// Tensors that are no such model, and heads that nobody knows.
pub(super) fn published(path: &Path, prefix: &str, all: &Shapes, options: &Options) -> Result<Found> {
    let refuse = |what: String| Error::input(format!("{} is not a published TokenFormer: {what}", path.display()));
    let own = |(name, shape): (&String, &Vec<usize>)| Some((name.strip_prefix(prefix)?.to_owned(), shape.clone()));
    let found: Shapes = all.iter().filter_map(own).collect();
    let layers = count_layers(&found).map_err(&refuse)?;
    fit::check_layers(layers, &found).map_err(&refuse)?;
    let theirs = |ours: &str| official_name(ours, layers).unwrap_or_default();
    let mut model = sizes(layers, Arch::Tokenformer, &|ours| found.get(&theirs(ours)).cloned()).map_err(&refuse)?;
    model.pattention_eps = 0.0;
    model.seq_length = options.seq_length.unwrap_or(SEQ_LENGTH);
    let expected = model.param_shapes().into_iter().map(|(ours, shape)| (theirs(&ours), shape)).collect();
    fit::check(&expected, &found).map_err(&refuse)?;
    let size = SIZES.iter().find(|(_, layers, width, _)| (*layers, *width) == (model.num_layers, model.hidden_size));
    let (heads, said) = match (options.heads, size) {
        (Some(heads), _) => (heads, format!("{heads} heads, as asked")),
        (None, Some((name, _, _, heads))) => (*heads, format!("{heads} heads, as the published {name} has")),
        (None, None) => return Err(heads_unknown(path, &model)),
    };
    model.num_attention_heads = heads;
    model.freeze_tau();
    let mut assumed = vec![format!(
        "assumed, as no file says it: {said}, l2_norm_gelu, tau = sqrt(N), rotary_pct {}, sequences of {} tokens",
        model.rotary_pct, model.seq_length
    )];
    let others = all.len() - found.len();
    if others > 0 {
        assumed.push(format!("{others} tensors that are not under {prefix:?} are left out"));
    }
    let take = |(ours, _): (String, _)| (ours.clone(), Take::Whole(format!("{prefix}{}", theirs(&ours))));
    let takes = model.param_shapes().into_iter().map(take).collect();
    Ok(Found { model, takes, form: "a published TokenFormer".to_owned(), assumed })
}

/// Whether the names are those of this program.
pub(super) fn is_own(shapes: &Shapes) -> bool {
    shapes.contains_key(EMBEDDING)
}

/// A model under the names of this program, of which only tensors are left.
///
/// # Errors
/// Tensors that are no such model, and heads that nobody knows.
pub(super) fn own(path: &Path, found: &Shapes, options: &Options) -> Result<Found> {
    let refuse = |what: String| {
        Error::input(format!(
            "{} has the names of this program and no metadata, and its tensors are no model: {what}",
            path.display()
        ))
    };
    let layer = |name: &String| name.strip_prefix("layers.")?.split('.').next()?.parse::<usize>().ok();
    let last = found.keys().filter_map(layer).max();
    let layers = last.map_or(0, |last| last.saturating_add(1));
    fit::check_layers(layers, found).map_err(&refuse)?;
    let arch =
        if found.contains_key(&Role::Keys(Module::Query).name_in(0)) { Arch::Tokenformer } else { Arch::Transformer };
    let mut model = sizes(layers, arch, &|ours| found.get(ours).cloned()).map_err(&refuse)?;
    model.seq_length = options.seq_length.unwrap_or(model.seq_length);
    fit::check(&model.param_shapes().into_iter().collect(), found).map_err(&refuse)?;
    model.num_attention_heads = options.heads.ok_or_else(|| heads_unknown(path, &model))?;
    model.freeze_tau();
    let assumed = vec![format!(
        "its metadata are lost, so all but the sizes is assumed: {} heads, as asked, tau = sqrt(N), rotary_pct {}, sequences of \
         {} tokens; the checkpoint it was made from says it",
        model.num_attention_heads, model.rotary_pct, model.seq_length
    )];
    let takes = model.param_shapes().into_iter().map(|(ours, _)| (ours.clone(), Take::Whole(ours))).collect();
    Ok(Found { model, takes, form: "tensors of tokenformer without metadata".to_owned(), assumed })
}

/// The model that shapes say, which are not compared with each other.
fn sizes(layers: usize, arch: Arch, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<ModelConfig, String> {
    let axes = |ours: String| match shape(&ours).as_deref() {
        Some(&[rows, columns]) => Ok([rows, columns]),
        Some(other) => Err(format!("tensor {ours:?} has shape {other:?} and not two axes")),
        None => Err(format!("tensor {ours:?} is missing")),
    };
    let [vocab_size, hidden_size] = axes(EMBEDDING.to_owned())?;
    let tie_word_embeddings = shape(HEAD).is_none();
    let sizes = ModelConfig { arch, vocab_size, hidden_size, num_layers: layers, ..ModelConfig::default() };
    let mut model = ModelConfig { tie_word_embeddings, ..sizes };
    match arch {
        Arch::Tokenformer => {
            let slots = |module| axes(Role::Keys(module).name_in(0)).map(|[slots, _]| slots);
            model.qkv_slot_num = slots(Module::Query)?;
            model.proj_slot_num = slots(Module::Proj)?;
            model.ffn_slot_num = slots(Module::Mlp)?;
        }
        Arch::Transformer => {
            [model.intermediate_size, _] = axes(Role::Weight(Linear::MlpIn).name_in(0))?;
            model.attention_bias = shape(&Role::Bias(Linear::Query).name_in(0)).is_some();
        }
    }
    Ok(model)
}

fn heads_unknown(path: &Path, model: &ModelConfig) -> Error {
    let width = model.hidden_size;
    let fits = |heads: &usize| ModelConfig { num_attention_heads: *heads, ..model.clone() }.validate().is_ok();
    let fitting: Vec<String> = (1..=width.min(1024)).filter(fits).take(8).map(|heads| heads.to_string()).collect();
    Error::usage(format!(
        "{} does not say how many attention heads it has, and no published model has {} layers of width {width}: give it with \
         --heads, of which {} fit",
        path.display(),
        model.num_layers,
        if fitting.is_empty() { "none".to_owned() } else { fitting.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of 2 layers, width 4, 7 words, and 3, 5 and 6 slots, under the published names written out.
    fn shapes() -> Shapes {
        let mut shapes = Shapes::from([
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

    #[test]
    fn a_published_model_is_renamed_and_measured() {
        let options = Options { heads: Some(2), ..Options::default() };
        let Found { model, takes, .. } = published(Path::new("w.pt"), "", &shapes(), &options).unwrap();
        let slots = (model.qkv_slot_num, model.proj_slot_num, model.ffn_slot_num);
        assert_eq!((model.num_layers, model.hidden_size, model.vocab_size, slots), (2, 4, 7, (3, 5, 6)));
        assert_eq!(takes.len(), shapes().len());
        assert_eq!(takes["layers.1.mlp.key_param_tokens"].from(), "sequential.3.mlp.key_param_tokens");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |spoil: &dyn Fn(&mut Shapes)| {
            let mut shapes = shapes();
            spoil(&mut shapes);
            let options = Options { heads: Some(2), ..Options::default() };
            let error = published(Path::new("w.pt"), "", &shapes, &options).unwrap_err().to_string();
            error.split_once("TokenFormer: ").unwrap().1.to_owned()
        };
        let name = "sequential.3.mlp.value_param_tokens";
        assert_eq!(
            refused(&|s| drop(s.insert(name.to_owned(), vec![5, 4]))),
            format!("{name:?} has shape [5, 4] and not [6, 4]")
        );
        assert_eq!(refused(&|s| drop(s.remove(name))), format!("{name:?} [6, 4] is missing"));
        assert_eq!(
            refused(&|s| drop(s.insert("sequential.6.final_linear.weight".to_owned(), vec![7, 4]))),
            "\"sequential.6.final_linear.weight\" has no place in it"
        );
        assert_eq!(
            refused(&|s| drop(s.insert("sequential.0.word_embeddings.weight".to_owned(), vec![7]))),
            "tensor \"word_embeddings.weight\" has shape [7] and not two axes"
        );
        assert!(refused(&|s| s.clear()).starts_with("it has no tensor"));
    }
}
