//! Names of the published TokenFormer weights.
//!
//! The files number the modules of a pipeline: `sequential.0` is the embedding, layer `i` of `L` is `sequential.{i+2}` and the
//! final norm `sequential.{L+3}`; 1 and L+2 have no parameters. The output head is tied to the embedding.

use super::fit::Shapes;
use crate::config::Module;

/// The two tensors of a Pattention.
const TOKENS: [&str; 2] = ["key_param_tokens", "value_param_tokens"];

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
    let known = TOKENS.contains(&tokens) && Module::ALL.iter().any(|known| known.name() == module);
    (known && layer < layers && layer.to_string() == index).then(|| format!("sequential.{}.{rest}", layer + 2))
}

/// The number of layers, from the place of the final norm.
pub(super) fn count_layers(shapes: &Shapes) -> Result<usize, String> {
    let place = |name: &String| name.strip_prefix("sequential.")?.strip_suffix(".norm.weight")?.parse::<usize>().ok();
    let layers = shapes.keys().find_map(place).and_then(|place| place.checked_sub(3));
    match layers {
        // A layer has ten tensors: a larger claim would only list names that cannot be there.
        Some(layers) if layers > 0 && layers <= shapes.len() => Ok(layers),
        Some(layers) => Err(format!("its final norm is placed after {layers} layers, it has {} tensors", shapes.len())),
        None => Err("it has no tensor \"sequential.<layers + 3>.norm.weight\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: usize = 2;

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
    fn layers_are_counted_by_the_place_of_the_final_norm() {
        let shapes = |name: &str| Shapes::from([(name.to_owned(), vec![4]), ("a".to_owned(), vec![1])]);
        assert_eq!(count_layers(&shapes("sequential.5.norm.weight")), Ok(2));
        let far = count_layers(&shapes("sequential.18446744073709551615.norm.weight")).unwrap_err();
        assert!(far.starts_with("its final norm is placed after"), "{far}");
        assert!(count_layers(&Shapes::new()).unwrap_err().starts_with("it has no tensor"));
    }
}
