#!/usr/bin/env python3
"""Compares an export with transformers, and a GGUF with llama.cpp, with what this program says of the same checkpoint.

    pip install torch transformers xllamacpp
    tokenformer export runs/mine hf-mine --to hf
    scripts/compare-transformers.py runs/mine hf-mine --data input.txt
    tokenformer export runs/mine mine.gguf --to gguf
    scripts/compare-transformers.py runs/mine hf-mine --data input.txt --gguf mine.gguf

Compared are the loss on all of the text, to 4 digits, and the text that follows a prompt, always the likeliest token, with a
cache. With `--logits FILE` also every logit; FILE is a safetensors file with the int32 `tokens` of a sequence and the float32
`logits` that this program gives them. Of a GGUF: log-probabilities of the first token and the text that follows, against
transformers; `--gguf-tolerance` says how far the log-probabilities of a quantised one may be off.
"""

import argparse
import itertools
import json
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoint", help="run directory or checkpoint file")
parser.add_argument("export", help="directory of `export --to hf`")
parser.add_argument("--program", default="tokenformer")
parser.add_argument("--data", help="text to measure the loss on")
parser.add_argument("--prompt", default="The ")
parser.add_argument("--tokens", type=int, default=100, help="tokens to generate")
parser.add_argument("--logits", help="safetensors file with tokens and logits")
parser.add_argument("--gguf", help="file of `export --to gguf`")
parser.add_argument("--gguf-tolerance", type=float, default=5e-4)
args = parser.parse_args()

failed = []


def report(what, found, fine):
    print(f"{'ok ' if fine else 'BAD'} {what}: {found}")
    if not fine:
        failed.append(what)


def ours(*words):
    """What the program answers."""
    done = subprocess.run([args.program, *words, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def loss_of(model, tokens, length):
    """Mean loss over windows side by side; of the last, which ends with the text, only what is new counts."""
    total, done = 0.0, 0
    while done < len(tokens) - 1:
        start = min(done, len(tokens) - 1 - length)
        inputs, targets = tokens[start : start + length], tokens[start + 1 : start + length + 1]
        losses = torch.nn.functional.cross_entropy(model(inputs[None]).logits[0].float(), targets, reduction="none")
        total += losses[done - start :].double().sum().item()
        done = start + length
    return total / (len(tokens) - 1)


model = AutoModelForCausalLM.from_pretrained(args.export, trust_remote_code=True).eval()
print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters())} parameters, {model.dtype}")
try:
    tokenizer = AutoTokenizer.from_pretrained(args.export, trust_remote_code=True)
except (OSError, ValueError):
    tokenizer = None
length = model.config.max_position_embeddings

if args.logits:
    from safetensors.torch import load_file

    given = load_file(args.logits)
    with torch.no_grad():
        found = model(given["tokens"].long()[None]).logits[0].float()
    off = (found - given["logits"].reshape(found.shape)).abs().max().item()
    report(f"logits of {len(found)} tokens", f"at most {off:.2e} apart", off <= 1e-4)

if args.data:
    with open(args.data, encoding="utf-8", newline="") as file:
        tokens = torch.tensor(tokenizer(file.read(), split_special_tokens=True).input_ids)
    answer, theirs = ours("eval", args.checkpoint, "--data", args.data), loss_of(model, tokens, length)
    report("tokens", f"{answer['tokens']} here, {len(tokens) - 1} there", answer["tokens"] == len(tokens) - 1)
    report("loss", f"{answer['loss']:.6f} here, {theirs:.6f} there", f"{answer['loss']:.4f}" == f"{theirs:.4f}")

if tokenizer:
    settings = ["--prompt", args.prompt, "--tokens", str(args.tokens), "--temperature", "0"]
    text = ours("generate", args.checkpoint, *settings)["samples"][0]["text"]
    prompt = tokenizer(args.prompt, return_tensors="pt")
    with torch.no_grad():
        made = {
            cached: model.generate(**prompt, max_new_tokens=args.tokens, do_sample=False, use_cache=cached)[0]
            for cached in (True, False)
        }
    follows = tokenizer.decode(made[True][prompt.input_ids.shape[1] :], skip_special_tokens=False)
    print(f"    {follows[:60]!r}...")
    same = text == follows or text == args.prompt + follows
    report(f"{args.tokens} tokens, with a cache", "the same" if same else f"other, here {text!r}", same)
    report("the cache", "changes nothing", torch.equal(made[True], made[False]))

if args.gguf:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel = args.gguf, length, False, 1
    params.n_gpu_layers = 0
    server = xllamacpp.Server(params)
    prompt = tokenizer(args.prompt, return_tensors="pt").input_ids

    def completed(tokens, logprobs):
        asked = {"prompt": args.prompt, "max_tokens": tokens, "temperature": 0, "logprobs": logprobs, "ignore_eos": True}
        return server.handle_completions(asked)["choices"][0]["logprobs"]["content"]

    first = completed(1, model.config.vocab_size)[0]["top_logprobs"]
    with torch.no_grad():
        expected = model(prompt).logits[0, -1].float().log_softmax(-1)
        follows = model.generate(prompt, max_new_tokens=50, do_sample=False)[0, prompt.shape[1] :]
    off = max(abs(one["logprob"] - expected[one["id"]].item()) for one in first)
    report(f"llama.cpp, {len(first)} log-probabilities of the first token", f"at most {off:.2e} apart", off <= args.gguf_tolerance)
    ids = [one["id"] for one in completed(50, 1)]
    pairs = zip(ids, follows.tolist())
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    exact = args.gguf_tolerance <= 5e-4
    report("llama.cpp, greedy", f"{same} of {len(follows)} tokens the same", same == len(follows) or not exact)

sys.exit(1 if failed else 0)
