"""Peak memory of one training step in PyTorch, counted tensor by tensor, for the sizes of `tokenformer bench step`.

  python benches/torch_memory.py --oracle DIR [--size small]

DIR holds `bench_torch.py` and the model it times.  Every storage is counted from the operator that makes it until it
is freed, by a dispatch mode, so Python, code and allocator caches are not counted; nor are they for tokenformer, whose
figure is the sum of all device buffers.  Counted here: parameters, gradients, both moments, activations saved for the
backward, and temporaries of operators.  A step is forward, backward, clipping and AdamW, as `bench_torch.py` writes it
(`foreach` AdamW; `--for-loop` counts the one that works parameter by parameter).
"""
import argparse
import json
import sys
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Bytes of all storages seen that are still alive, and the most there were."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return
        size = storage.nbytes()
        self.alive[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.gone, key)

    def gone(self, key):
        self.now -= self.alive.pop(key, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", required=True)
    ap.add_argument("--size", choices=["tiny", "small"], default="small")
    ap.add_argument("--for-loop", action="store_true")
    a = ap.parse_args()
    sys.path.insert(0, a.oracle)
    import bench_torch as B
    import tokenformer_oracle as O

    kw, batch, seq = B.SIZES[a.size]
    cfg = O.Config(arch="tokenformer", **kw)
    g = torch.Generator().manual_seed(0)
    p = {n: t.requires_grad_(True) for n, t in O.init_params(cfg, g).items()}
    tok = O.structured_tokens(g, cfg.vocab, batch, seq + 1)
    x, y = tok[:, :-1].contiguous(), tok[:, 1:].contiguous()
    rope = O.rotary_tables(seq, cfg.rot, cfg.rotary_base, torch.float32)
    opt = torch.optim.AdamW(list(p.values()), lr=6e-4, foreach=not a.for_loop)

    def step():
        opt.zero_grad(set_to_none=True)
        B.fast_loss(p, cfg, x, y, rope).backward()
        before_update = mode.peak
        torch.nn.utils.clip_grad_norm_(list(p.values()), 1.0)
        opt.step()
        return before_update

    with Peak() as mode:
        step()  # makes the moments
        mode.peak = mode.now
        backward_peak = step()
    params = sum(t.numel() for t in p.values())
    print(json.dumps({"torch": torch.__version__, "size": a.size, "parameters": params,
                      "state_bytes": 16 * params, "peak_bytes": mode.peak,
                      "peak_of_forward_and_backward": backward_peak}))


if __name__ == "__main__":
    main()
