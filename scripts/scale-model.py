#!/usr/bin/env python3
"""What an update costs on several ranks, on paper: the tables of docs/scale.md.

    python3 scripts/scale-model.py

An update of `tokens` tokens on n ranks that each train `speed` tokens a second alone, with P parameters whose gradients are
4 P bytes (2 P with transfer_precision f16):

    compute   tokens / (n speed)
    network   2 (n - 1) / n gradients / link          to owners, and the sums back
    host      gradients / PACK + (n - 1) / n gradients / SUM + (1 + (n - 1) / n) gradients / UNPACK
    hidden    2 / 3 micro-batch / speed               the backward of the last micro-batch, during which gradients leave
    update    compute + max(0, network + host - hidden)
"""

# Bytes a second, as measured on two cores of a server (docs/scale.md); a machine with a GPU is rarely slower.
PACK, SUM, UNPACK = 1.3e9, 2.9e9, 2.2e9

PRESETS = {
    # Parameters, tokens a second alone (an H100: docs/results.md), tokens of a micro-batch, tokens of an update.
    "150m, f32": (151_881_216, 29_538, 4096, 491_520),
    "150m, f16": (151_881_216, 67_727, 4096, 491_520),
    # By its floating-point operations, 9.86 times those of the 150m; not measured.
    "1-5b, f32": (1_587_219_456, 29_538 / 9.86, 4096, 491_520),
}
LINKS = {"1 Gbit/s": 1e9 / 8, "10 Gbit/s": 1e10 / 8, "100 Gbit/s": 1e11 / 8}


def update(n, parameters, speed, micro, tokens, link, half=False):
    """Seconds of an update, and of its compute alone."""
    gradients = 4 * parameters
    sent = gradients / 2 if half else gradients
    compute = tokens / n / speed
    if n == 1:
        return compute, compute
    share = (n - 1) / n
    network = 2 * share * sent / link
    host = gradients / PACK + share * gradients / SUM + (1 + share) * gradients / UNPACK
    hidden = 2 / 3 * micro / speed
    return compute + max(0, network + host - hidden), compute


def main():
    for half in (False, True):
        print(f"\ntransfer in {'f16' if half else 'f32'}: seconds of an update (speed-up over one rank)\n")
        counts = [1, 2, 4, 8, 16, 64]
        print("| preset | link | " + " | ".join(f"{n} ranks" if n > 1 else "1 rank" for n in counts) + " |")
        print("|---|---|" + "---|" * len(counts))
        for preset, values in PRESETS.items():
            for name, link in LINKS.items():
                alone, _ = update(1, *values, link)
                cells = []
                for n in counts:
                    seconds, _ = update(n, *values, link, half)
                    cells.append(f"{seconds:.1f} ({alone / seconds:.1f})" if n > 1 else f"{seconds:.1f}")
                print(f"| {preset} | {name} | " + " | ".join(cells) + " |")


main()
