"""PyTorch on a CUDA GPU, to stand beside `tokenformer bench`: cuBLAS products and training steps of the 150m preset.

  python benches/torch_gpu.py --oracle DIR [--seconds 5] [--batch 4] [--precisions float32,float16] [--out FILE] [--cpu]

DIR holds `bench_torch.py` and `tokenformer_oracle.py`, the model it times: the official architecture in PyTorch's fused
operators.  Products: n = 4096, float32 (TF32 off, then on) and float16.  Steps: forward, backward, clipping and AdamW
at T 1024, eager and `torch.compile`, in float32 and under autocast to float16 (with GradScaler) and bfloat16.  Every
figure has its samples; the clock is wall time around a synchronised loop.  The report goes to FILE after each figure, so that
nothing is lost when time runs out, or to standard output at the end.  `--cpu` runs small sizes on a CPU, to try the script.
"""
import argparse
import itertools
import json
import statistics
import sys
import time

import torch


def samples(fn, seconds, sync, parts=5):
    """Seconds a call: `parts` samples of equal length, after a warm-up."""
    fn(), fn(), sync()
    out = []
    for _ in range(parts):
        n, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / parts:
            fn()
            n += 1
            if n % 8 == 0:
                sync()
        sync()
        out.append((time.perf_counter() - start) / n)
    return out


def matmuls(device, n, seconds, sync):
    for name, dtype, tf32 in [("float32", torch.float32, False), ("tf32", torch.float32, True),
                              ("float16", torch.float16, False)]:
        if device.type == "cpu" and name != "float32":
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        c = torch.empty(n, n, device=device, dtype=dtype)
        t = samples(lambda: torch.mm(a, b, out=c), seconds, sync)
        flops = 2 * n ** 3
        yield {"op": "matmul", "n": n, "dtype": name, "gflops_median": flops / statistics.median(t) / 1e9,
               "gflops_best": flops / min(t) / 1e9, "samples_ms": [1e3 * x for x in t]}
    torch.backends.cuda.matmul.allow_tf32 = False


def steps(device, oracle, cfg, batch, seq, seconds, sync, precisions):
    B, O = oracle
    for precision, compiled in [(p, c) for p in precisions for c in (False, True)]:
        if device.type == "cpu" and (precision == "float16" or compiled):
            continue
        torch.manual_seed(0)
        torch._dynamo.reset()
        params = {n: t.to(device).requires_grad_(True) for n, t in O.init_params(cfg, torch.Generator().manual_seed(0)).items()}
        tokens = torch.randint(0, cfg.vocab, (batch, seq + 1), device=device)
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        rope = tuple(t.to(device) for t in O.rotary_tables(seq, cfg.rot, cfg.rotary_base, torch.float32))
        optimizer = torch.optim.AdamW(list(params.values()), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                      fused=device.type == "cuda")
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        loss_fn = torch.compile(B.fast_loss) if compiled else B.fast_loss
        cast = torch.autocast(device.type, dtype=getattr(torch, precision), enabled=precision != "float32")

        def step():
            optimizer.zero_grad(set_to_none=True)
            with cast:
                loss = loss_fn(params, cfg, x, y, rope)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(list(params.values()), 1.0)
            scaler.step(optimizer)
            scaler.update()

        record = {"op": "step", "precision": precision, "compiled": compiled, "batch": batch, "seq": seq,
                  "parameters": sum(t.numel() for t in params.values())}
        try:
            t = samples(step, seconds, sync)
        except Exception as cause:  # a compiler that is missing here says nothing about the rest
            yield {**record, "failed": str(cause).splitlines()[0]}
            continue
        tokens_s = batch * seq / statistics.median(t)
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
        yield {**record, "tokens_per_s_median": tokens_s, "tokens_per_s_best": batch * seq / min(t),
               "samples_ms": [1e3 * s for s in t], "peak_bytes": peak}
        del params, optimizer


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", required=True)
    ap.add_argument("--seconds", type=float, default=5.0)
    ap.add_argument("--batch", type=int, default=4)
    ap.add_argument("--precisions", default="float32,float16,bfloat16")
    ap.add_argument("--out")
    ap.add_argument("--cpu", action="store_true")
    a = ap.parse_args()
    sys.path.insert(0, a.oracle)
    import bench_torch
    import tokenformer_oracle

    device = torch.device("cpu" if a.cpu else "cuda")
    sync = (lambda: None) if a.cpu else torch.cuda.synchronize
    size = dict(vocab=50304, layers=12, width=768, heads=12, qkv_slots=768, proj_slots=768, ffn_slots=3072)
    seq = 1024
    if a.cpu:
        size, seq = dict(vocab=256, layers=2, width=64, heads=2, qkv_slots=64, proj_slots=64, ffn_slots=128), 64
    cfg = tokenformer_oracle.Config(arch="tokenformer", **size)
    name = "cpu" if a.cpu else torch.cuda.get_device_name()
    report = {"torch": torch.__version__, "device": name, "command": " ".join(sys.argv), "records": []}
    oracle = (bench_torch, tokenformer_oracle)
    for record in itertools.chain(matmuls(device, 256 if a.cpu else 4096, a.seconds, sync),
                                  steps(device, oracle, cfg, a.batch, seq, a.seconds, sync, a.precisions.split(","))):
        report["records"].append(record)
        if a.out:
            rate = record.get("tokens_per_s_median") or record.get("gflops_median")
            print({k: v for k, v in record.items() if k in ("op", "n", "dtype", "precision", "compiled")}, rate, flush=True)
            with open(a.out, "w") as file:
                json.dump(report, file, indent=1)
    if not a.out:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
