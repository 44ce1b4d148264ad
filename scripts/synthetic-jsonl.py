#!/usr/bin/env python3
"""Writes lines of JSON with made-up text, to time `tokenformer prepare` by.

    python3 scripts/synthetic-jsonl.py 400 > corpus.jsonl      # 400 MB

Words are of Zipf's distribution: 100,000 of them, most of Latin letters, one in twenty of other scripts. Documents have
from 5 to 2000 words, with signs, numbers, capitals and line breaks. The same seed gives the same bytes.
"""

import json
import random
import sys

SCRIPTS = ["aeioutnshrdlcmwfgypbvkjxqz", "àéèüöäßñçøåæ", "абвгдежзиклмнопрстуфхцчшщыэюя", "αβγδεζηθικλμνξοπρστυφχψω", "日本語文字中国人大小学生年月時分", "한국말글자사람", "अआइईउऊएकखगघच", "😀🎉🚀❤✨"]


def words(rng, count):
    made = []
    for rank in range(count):
        letters = SCRIPTS[0] if rng.random() < 0.95 else rng.choice(SCRIPTS[1:])
        # Common words are short, as in every language.
        length = max(1, min(14, int(rng.gauss(2 + rank ** 0.18, 1.5))))
        if letters is SCRIPTS[0]:
            weights = [1 / (place + 2) for place in range(len(letters))]
            made.append("".join(rng.choices(letters, weights, k=length)))
        else:
            made.append("".join(rng.choices(letters, k=max(1, length // 2))))
    return made


def document(rng, vocabulary, weights):
    chosen = rng.choices(vocabulary, cum_weights=weights, k=int(min(2000, 5 + rng.expovariate(1 / 250))))
    out, starts = [], True
    for word in chosen:
        out.append(word.capitalize() if starts else word)
        starts = False
        sign = rng.random()
        if sign < 0.06:
            out[-1] += "."
            starts = True
        elif sign < 0.12:
            out[-1] += ","
        elif sign < 0.125:
            out[-1] += "\n\n"
            starts = True
        elif sign < 0.14:
            out.append(str(rng.randrange(10 ** rng.randrange(1, 7))))
        elif sign < 0.145:
            out[-1] = '"' + out[-1] + "'s\""
    return " ".join(out)


def main():
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    vocabulary = words(rng, 100_000)
    weights, total = [], 0.0
    for rank in range(len(vocabulary)):
        total += 1 / (rank + 2.7)
        weights.append(total)
    left, number = int(megabytes * 1e6), 0
    while left > 0:
        line = json.dumps({"id": number, "text": document(rng, vocabulary, weights), "meta": {"source": "made up"}}, ensure_ascii=number % 7 == 0)
        line = (line + "\n").encode()
        sys.stdout.buffer.write(line)
        left -= len(line)
        number += 1


if __name__ == "__main__":
    main()
