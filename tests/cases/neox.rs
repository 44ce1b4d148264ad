//! A Transformer with the options of GPT-NeoX, from training over growth to generation.

use super::program::Folder;
use serde_json::Value;

const OPTIONS: &str = "--set model.arch=transformer --set model.use_parallel_residual=true --set model.attention_bias=false \
                       --set model.tie_word_embeddings=false";

#[test]
fn a_model_with_every_option_trains_grows_and_generates() {
    let folder = Folder::new();
    folder.train(OPTIONS).ok();
    let tensors = folder.run("inspect runs/tiny --tensors").ok().stdout;
    assert!(
        tensors.contains("\nembed_out.weight ") && tensors.contains("\noptimizer.v.embed_out.weight "),
        "{tensors}"
    );
    assert!(!tensors.contains("attention.query.bias") && tensors.contains("mlp.dense_h_to_4h.bias"), "{tensors}");
    let said = folder.run("grow runs/tiny grown.safetensors --policy identity --layers 2 --json").ok().stdout;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(said["growth"]["max_logit_change"], 0.0, "{said}");
    folder.run("train --resume grown.safetensors --out runs/grown --steps 30 --tune off").ok();
    folder.run("generate runs/grown --prompt A --tokens 20").ok();
}
