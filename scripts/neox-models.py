"""Small random GPT-NeoX models as transformers saves them, with what transformers computes of them: what `import` is held against.

    python scripts/neox-models.py OUT [--count N] [--seed S]      N models of random shapes and options
    python scripts/neox-models.py tests/fixtures/import --fixtures the models that are checked in

Needs torch, transformers, safetensors and tokenizers. Each model is a directory:

    config.json, model*.safetensors or pytorch_model*.bin       as save_pretrained or torch.save writes them
    expected.safetensors   in.tokens (steps, B, T + 1), out.logits (B, T, V), out.loss (steps): AdamW at a rate of LR
    gradient/              the same model with the gradients of the first step for weights

Everything expected is computed in float64 from the weights as they are stored.
"""

import argparse
import copy
import json
import pathlib
import random
import shutil

import torch
from safetensors.torch import save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

STEPS, LR, CLIP, DECAY, BETAS = 20, 1e-3, 1.0, 0.1, (0.9, 0.95)


def draw(rng):
    """A random shape, and in which form it is stored."""
    heads = rng.choice([1, 2, 4, 6])
    width = rng.choice([8, 12, 16])
    rotary = rng.choice([0.25, 0.5, 1.0])
    if int(width * rotary) % 2:
        rotary = 1.0
    shape = dict(
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_hidden_layers=rng.choice([1, 2, 3]),
        intermediate_size=rng.choice([24, 64, 100]),
        vocab_size=rng.choice([37, 64, 130]),
        rotary_pct=rotary,
        rotary_emb_base=rng.choice([10000, 1000]),
        hidden_act=rng.choice(["gelu", "gelu_new"]),
        layer_norm_eps=rng.choice([1e-5, 1e-6]),
        use_parallel_residual=rng.random() < 0.5,
        tie_word_embeddings=rng.random() < 0.5,
        attention_bias=rng.random() < 0.7,
    )
    form = dict(
        dtype=rng.choice(["float32", "float16", "bfloat16"]),
        file=rng.choice(["safetensors", "shards", "bin", "bin shards"]),
        length=rng.choice([9, 16]),
        rows=rng.choice([1, 2]),
    )
    return shape, form


def made(shape, length, seed):
    torch.manual_seed(seed)
    config = GPTNeoXConfig(max_position_embeddings=length, hidden_dropout=0.0, attention_dropout=0.0, **shape)
    model = GPTNeoXForCausalLM(config)
    with torch.no_grad():
        # So that biases, norms and every row matter.
        for name, value in model.named_parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.1))
    return model.eval()


def stored(model, out, form):
    """Writes the model, and gives it the values as they were stored."""
    # Not the frequencies of the rotation, which no file has.
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.to(getattr(torch, form["dtype"])))
    whole, model = model, copy.deepcopy(model).to(getattr(torch, form["dtype"]))
    if form["file"] == "safetensors":
        model.save_pretrained(out)
    elif form["file"] == "shards":
        model.save_pretrained(out, max_shard_size="20KB")
    else:
        model.config.save_pretrained(out)
        state = {name: value for name, value in model.state_dict().items()}
        names = sorted(state)
        parts = [names] if form["file"] == "bin" else [names[: len(names) // 2], names[len(names) // 2 :]]
        files = ["pytorch_model.bin"]
        if len(parts) > 1:
            files = [f"pytorch_model-{i + 1:05}-of-{len(parts):05}.bin" for i in range(len(parts))]
            index = {name: file for file, part in zip(files, parts) for name in part}
            (out / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
        for file, part in zip(files, parts):
            torch.save({name: state[name] for name in part}, out / file)
    return whole.to(torch.float64)


def groups(model):
    plain = [value for value in model.parameters() if value.ndim == 1]
    decayed = [value for value in model.parameters() if value.ndim > 1]
    return [dict(params=decayed, weight_decay=DECAY), dict(params=plain, weight_decay=0.0)]


def expected(model, out, form, shape, seed, gradient=True, steps=STEPS):
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(shape["vocab_size"], (steps, form["rows"], form["length"] + 1), generator=rng)
    with torch.no_grad():
        logits = model(tokens[0, :, :-1]).logits
    optimizer = torch.optim.AdamW(groups(model), lr=LR, betas=BETAS, eps=1e-8)
    losses = []
    for step in range(steps):
        rows = tokens[step]
        optimizer.zero_grad()
        logits_now = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits_now.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        if step == 0 and gradient:
            folder = out / "gradient"
            folder.mkdir()
            shutil.copy(out / "config.json", folder)
            named = {name: value.grad.float().contiguous() for name, value in model.named_parameters()}
            save_file(named, folder / "model.safetensors")
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    tensors = {
        "in.tokens": tokens.to(torch.int32),
        "out.logits": logits.float().contiguous(),
        "out.loss": torch.tensor(losses, dtype=torch.float32),
    }
    save_file(tensors, out / "expected.safetensors")


def random_models(out, count, seed):
    for index in range(count):
        shape, form = draw(random.Random(seed * 1000 + index))
        folder = out / f"model-{index:03}"
        folder.mkdir(parents=True)
        model = stored(made(shape, form["length"], seed + index), folder, form)
        expected(model, folder, form, shape, seed + index)
        print(folder, shape, form)


def tokenizer(out, size):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|padding|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size - 2, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(["the cat sat on the mat, and the other cats saw that it sat there"] * 3, trainer)
    # As GPT-NeoX has them: runs of blanks after all that was learnt.
    made.add_tokens([AddedToken("        ", normalized=True), AddedToken("    ", normalized=True)])
    made.save(str(out / "tokenizer.json"))
    text = "The cat sat there,    and so on.<|endoftext|>\n"
    return dict(text=text, tokens=made.encode(text).ids, vocab=made.get_vocab_size())


def fixtures(out):
    base = dict(rotary_emb_base=10000, layer_norm_eps=1e-5, hidden_act="gelu")
    models = {
        # As Pythia: parallel, a head of its own, a padded vocabulary, half precision.
        "pythia": (
            dict(
                hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32, vocab_size=288,
                rotary_pct=0.25, use_parallel_residual=True, tie_word_embeddings=False, attention_bias=True, **base,
            ),
            dict(dtype="float16", file="safetensors", length=16, rows=1),
        ),
        # What Pythia is not: one after the other, tied, no biases, in two files that torch.save wrote.
        "tied": (
            dict(
                hidden_size=24, num_attention_heads=3, num_hidden_layers=1, intermediate_size=40, vocab_size=37,
                rotary_pct=0.5, use_parallel_residual=False, tie_word_embeddings=True, attention_bias=False, **base,
            ),
            dict(dtype="bfloat16", file="bin shards", length=9, rows=1),
        ),
    }
    for index, (name, (shape, form)) in enumerate(models.items()):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = stored(made(shape, form["length"], 70 + index), folder, form)
        expected(model, folder, form, shape, 70 + index, gradient=False, steps=1)
        if name == "pythia":
            (folder / "tokens.json").write_text(json.dumps(tokenizer(folder, 280)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fixtures", action="store_true")
    given = parser.parse_args()
    if given.fixtures:
        fixtures(given.out)
    else:
        random_models(given.out, given.count, given.seed)


if __name__ == "__main__":
    main()
