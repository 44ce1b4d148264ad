#!/usr/bin/env python3
"""Compares the tokens of this program with those of the packages `tiktoken` and `tokenizers` on random strings.

    pip install tiktoken tokenizers
    cargo build --release --example tokens
    scripts/compare-tokenizers.py --ranks ~/.cargo/registry/src/*/tiktoken-rs-*/assets --file tokenizer.json

`--ranks` is a folder with the `.tiktoken` files that tiktoken would download; each has the hash that tiktoken expects.
With `--fixture FILE` some hundred of the strings and their tokens are written for tests/cases.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys

BLOCKS = [
    (0x20, 0x7F), (0x20, 0x7F), (0x20, 0x7F), (0x00, 0x20), (0x80, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x700),
    (0x900, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2C00), (0x3000, 0x3130),
    (0x4E00, 0x9FA0), (0xAC00, 0xD7A0), (0xE000, 0xE010), (0xFB00, 0xFE10), (0xFE20, 0x10000), (0x10000, 0x11000),
    (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0x20000, 0x20100), (0xE0000, 0xE0200), (0x10FFF0, 0x110000),
]
SPACES = [" ", " ", "  ", "\t", "\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028",
          "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff", "\u180e"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u20dd", "\u0e31", "\u093f", "\u05b0", "\ufe0f", "\u200d", "\u0345", "\u1dca"]
ENDS = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'Ve", "'m", "'ll", "'LL", "'d", "'\u017f", "\u2019s", "'x", "''s", "'"]
SPECIAL = ["<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
           "<tool_call>", "<|endoftext|", "<|fim_middle|>", "<|vision_pad|>", "<|", "|>"]
WORDS = "the of HTTPServer iPhone naïve Straße ǅungla ΑΒΓδ Привет 東京都 日本語 안녕 नमस्ते שלום مرحبا ไทย x1y2 e\u0301 İstanbul".split()


def character(rng):
    while True:
        low, high = rng.choice(BLOCKS)
        code = rng.randrange(low, high)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def piece(rng):
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(WORDS)
    if kind == 3:
        return rng.choice(ENDS)
    if kind == 4:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 5)))
    if kind == 5:
        return "".join(rng.choice("0123456789²½٣৪Ⅷ") for _ in range(rng.randrange(1, 12)))
    if kind == 6:
        return rng.choice(SPECIAL)
    if kind == 7:
        return character(rng) + "".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 4)))
    if kind == 8:
        return rng.choice(["!", "?", "...", "//", "/", "--", "{}[]", "=>", "\\", "\"", "\n/", "!\r\n", ",", "_"])
    if kind == 9 and rng.randrange(4) == 0:
        return rng.choice(["a", "A", " ", "\n", "=", "0", "😀", "\u0301", "é", "\t", "'", "中", "\r\n"]) * rng.randrange(2, 300)
    return "".join(character(rng) for _ in range(rng.randrange(1, 6)))


def strings(count, seed):
    rng = random.Random(seed)
    return ["".join(piece(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 13, 40]))) for _ in range(count)]


def of_tiktoken(ranks, name):
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    import tiktoken
    from tiktoken_ext import openai_public

    def local(url, expected_hash=None):
        data = (ranks / os.path.basename(url)).read_bytes()
        assert expected_hash in (None, hashlib.sha256(data).hexdigest()), f"{url}: other ranks"
        import base64
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}

    openai_public.load_tiktoken_bpe = local
    made = {"gpt2": openai_public.r50k_base, "cl100k": openai_public.cl100k_base, "o200k": openai_public.o200k_base}[name]()
    encoding = tiktoken.Encoding(**made)
    return lambda text, special: encoding.encode(
        text, allowed_special="all" if special else set(), disallowed_special=()
    )


def of_file(path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def encode(text, special):
        tokenizer.encode_special_tokens = not special
        return tokenizer.encode(text, add_special_tokens=False).ids

    return encode


def ours(program, kind, texts, special):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    command = [*program, kind] + (["special"] if special else [])
    said = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--program", default="target/release/examples/tokens", help="what prints tokens, with its arguments")
    parse.add_argument("--ranks", type=pathlib.Path)
    parse.add_argument("--file", type=pathlib.Path, action="append", default=[])
    parse.add_argument("--count", type=int, default=10_000)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--fixture", type=pathlib.Path)
    args = parse.parse_args()
    texts = strings(args.count, args.seed)
    if args.fixture:
        texts = [text for text in texts if len(text) <= 80]
    kinds = {}
    if args.ranks:
        kinds.update({name: of_tiktoken(args.ranks, name) for name in ("gpt2", "cl100k", "o200k")})
    kinds.update({str(path): of_file(path) for path in args.file})
    wrong, fixture = 0, {"texts": texts, "ids": {}}
    for kind, theirs in kinds.items():
        for special in (False, True):
            expected = [theirs(text, special) for text in texts]
            found = ours(args.program.split(), kind, texts, special)
            differ = [at for at in range(len(texts)) if expected[at] != found[at]]
            wrong += len(differ)
            tokens = sum(map(len, expected))
            print(f"{kind}{' with special tokens' if special else ''}: {len(texts)} strings, {tokens} tokens, {len(differ)} differ")
            for at in differ[:5]:
                print(f"  {texts[at]!r}\n    theirs {expected[at]}\n    ours   {found[at]}")
            fixture["ids"].setdefault(kind, []).append(expected)
    if args.fixture:
        args.fixture.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
