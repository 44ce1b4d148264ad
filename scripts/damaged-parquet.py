#!/usr/bin/env python3
"""Damages small parquet files in many ways and prepares each: the program must end with a sentence and a code of 0, 1 or 2,
in 600 MB of address space.

    python3 scripts/damaged-parquet.py target/release/tokenformer [FILES]

Needs pyarrow, and a program that was built with `--features parquet`.
"""

import collections
import io
import os
import random
import subprocess
import sys
import tempfile

import pyarrow
import pyarrow.parquet


def whole(compression):
    file = io.BytesIO()
    table = pyarrow.table({"text": ["one two", "three " * 20, "four"] * 30})
    pyarrow.parquet.write_table(table, file, compression=compression)
    return file.getvalue()


def damaged(dice, whole):
    bytes_ = bytearray(whole)
    kind = dice.randrange(4)
    if kind == 0:
        for _ in range(dice.randint(1, 8)):
            bytes_[dice.randrange(len(bytes_))] = dice.randrange(256)
    elif kind == 1:
        bytes_ = bytes_[: dice.randrange(len(bytes_))]
    elif kind == 2:
        # The footer, which says where everything is.
        for _ in range(dice.randint(1, 6)):
            bytes_[dice.randrange(max(0, len(bytes_) - 700), len(bytes_) - 8)] = dice.choice([0, 127, 128, 255])
    else:
        bytes_[-8:-4] = dice.randrange(2**32).to_bytes(4, "little")
    return bytes(bytes_)


def main():
    program, files = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 240
    dice, codes = random.Random(5), collections.Counter()
    sources = [whole(compression) for compression in ("snappy", "zstd", "gzip")]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            content = damaged(dice, dice.choice(sources))
            with open(os.path.join(folder, "f.parquet"), "wb") as file:
                file.write(content)
            line = f"ulimit -v 600000; exec '{program}' -q prepare f.parquet --tokenizer byte --threads 1 --out out --overwrite"
            ran = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60)
            codes[ran.returncode] += 1
            if ran.returncode not in (0, 1, 2) or ran.stderr.count("\n") > 2:
                sys.exit(f"file {number} ended with {ran.returncode}: {ran.stderr}")
    print(f"{files} damaged files: {codes[0]} read, {codes[1] + codes[2]} refused in a sentence")


main()
