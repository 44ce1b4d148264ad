//! Three uses of every verb, shown below its help.

use clap::Command;

/// What follows `tokenformer`, by verb.
const EXAMPLES: &[(&str, [&str; 3])] = &[
    (
        "train",
        [
            "train input.txt --preset shakespeare-char -o runs/mine",
            "train --resume runs/mine -n 3000",
            "train -c run.toml -s train.grad_clip=0.5 --precision f16",
        ],
    ),
    (
        "prepare",
        [
            "prepare books/ --out data/books --tokenizer gpt2 --val-fraction 0.01",
            "prepare corpus.jsonl.zst -o data/corpus --tokenizer bpe:4096 --text-key content",
            "prepare input.txt -o data/shakespeare --val-by end",
        ],
    ),
    (
        "grow",
        [
            "grow runs/mine grown.safetensors --ffn-slots 768",
            "grow runs/mine deep.safetensors --policy identity --layers 6",
            "grow runs/mine new.safetensors --ffn-slots 768 --train new",
        ],
    ),
    (
        "prune",
        [
            "prune runs/mine --keep 0.5",
            "prune runs/mine small.safetensors --keep 0.5",
            "prune runs/mine small.safetensors --ffn-slots 256 --score weight",
        ],
    ),
    (
        "export",
        [
            "export runs/mine hf-mine --to hf",
            "export runs/mine mine.gguf --to gguf --dtype q8_0",
            "export runs/mine mine.safetensors --to safetensors --best",
        ],
    ),
    (
        "import",
        [
            "import pythia-70m pythia.safetensors",
            "import TokenFormer-150M/pytorch_model.bin tf.safetensors --tokenizer tokenizer.json",
            "import weights.pt mine.safetensors --heads 4 --seq-length 256 --tokenizer byte",
        ],
    ),
    (
        "generate",
        [
            "generate runs/mine -p \"ROMEO:\" -n 300",
            "generate runs/mine --prompt-file start.txt --num-samples 3 --stop \"JULIET:\"",
            "generate runs/mine --temperature 0.8 --top-k 20 --min-p 0.05 --seed 3",
        ],
    ),
    ("eval", ["eval runs/mine", "eval runs/mine -d other.txt", "eval runs/mine --split train --json"]),
    (
        "inspect",
        [
            "inspect runs/mine",
            "inspect runs/mine/checkpoints/step-00002000.safetensors --tensors",
            "inspect runs/mine --json",
        ],
    ),
    (
        "plan",
        [
            "plan --preset bench-small",
            "plan -c run.toml --target webgpu",
            "plan input.txt --preset 150m --batch-size 2",
        ],
    ),
    (
        "lr-find",
        [
            "lr-find --preset quickstart",
            "lr-find input.txt -c run.toml --picture rates.svg",
            "lr-find --preset quickstart --min-lr 1e-5 --max-lr 0.1 --steps 200 --json",
        ],
    ),
    ("selftest", ["selftest", "selftest --quick", "selftest --backend gl"]),
    (
        "bench",
        [
            "bench roofline",
            "bench step --preset bench-small",
            "bench matmul --sizes 1024,4096x128x4096 --layout nt --dtype f32,f16",
        ],
    ),
    (
        "study",
        [
            "study studies/quick.toml --dry-run",
            "study studies/quick.toml",
            "study studies/tinyshakespeare.toml -d input.txt --predict",
        ],
    ),
    (
        "compare",
        [
            "compare runs/a runs/b -o report",
            "compare base=runs/a base=runs/b grown=runs/c",
            "compare old=runs/a new=runs/b --reference old",
        ],
    ),
    (
        "report",
        ["report runs/mine", "report base=runs/a grown=runs/b --out both.html", "report runs/mine --out loss.svg"],
    ),
    ("devices", ["devices", "devices --save laptop.json", "devices --backend gl --json"]),
    ("presets", ["presets", "presets shakespeare-char", "plan --preset 150m"]),
    (
        "completions",
        [
            "completions bash > ~/.local/share/bash-completion/completions/tokenformer",
            "completions zsh > ~/.zfunc/_tokenformer",
            "completions fish > ~/.config/fish/completions/tokenformer.fish",
        ],
    ),
    ("man", ["man ~/.local/share/man/man1", "man man", "man ."]),
];

/// `verb` with its examples below its help.
pub(super) fn shown(verb: Command) -> Command {
    match EXAMPLES.iter().find(|(name, _)| *name == verb.get_name()) {
        Some((_, lines)) => {
            let lines: Vec<String> = lines.iter().map(|line| format!("  tokenformer {line}")).collect();
            verb.after_help(format!("Examples:\n{}", lines.join("\n")))
        }
        None => verb,
    }
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EXAMPLES.iter().flat_map(|(verb, lines)| lines.iter().map(move |line| (*verb, *line)))
}
