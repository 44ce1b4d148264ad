#!/usr/bin/env python3
"""Makes tests/fixtures/optimizers/: what PyTorch's Muon and its moving average of weights come to, in float64.

    python3 -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python scripts/golden-optimizers.py

torch.optim.Muon orthogonalizes in bfloat16, which has three digits. The module it is written in is given a torch whose
bfloat16 is float64; nothing else of it changes, so the values are those of its own code to 1e-15. What its bfloat16 makes of
the same is off by up to `bfloat16_error`.
"""

import json
import types
from pathlib import Path

import torch
import torch.optim._muon as muon_module

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "optimizers"
SHAPES = [(8, 8), (5, 13), (13, 5), (1, 7), (20, 9)]
STEPS = 3
SETTINGS = {"lr": 0.03, "weight_decay": 0.1, "momentum": 0.95}


def numbers(tensor):
    """Twelve digits; all of those of a float32."""
    return [float(f"{float(x):.12g}") for x in tensor.flatten()]


def run_muon(start, grads, adjust, exact):
    """The parameter and its momentum after each step."""
    original = muon_module.torch
    if exact:
        muon_module.torch = types.SimpleNamespace(**{**vars(torch), "bfloat16": torch.float64})
    try:
        parameter = torch.nn.Parameter(start.clone())
        optimizer = torch.optim.Muon([parameter], adjust_lr_fn=adjust, **SETTINGS)
        steps = []
        for grad in grads:
            parameter.grad = grad.clone()
            optimizer.step()
            steps.append((parameter.detach().clone(), optimizer.state[parameter]["momentum_buffer"].clone()))
        return steps
    finally:
        muon_module.torch = original


def muon(generator):
    cases = []
    for shape in SHAPES:
        # As float32 holds them, so that both sides start from the same numbers.
        draw = lambda scale: (scale * torch.randn(shape, generator=generator)).float().double()
        start, grads = draw(0.02), [draw(1e-3) for _ in range(STEPS)]
        case = {"shape": shape, "start": numbers(start), "grads": [numbers(grad) for grad in grads], "after": {}}
        for adjust in ["match_rms_adamw", "original"]:
            exact, rough = (run_muon(start, grads, adjust, exact) for exact in [True, False])
            case["after"][adjust] = {
                "parameters": [numbers(parameter) for parameter, _ in exact],
                "momentum": [numbers(momentum) for _, momentum in exact],
                "bfloat16_error": float((rough[-1][0] - exact[-1][0]).abs().max()),
            }
        cases.append(case)
    return {"torch": torch.__version__, **SETTINGS, "cases": cases}


def average(generator):
    """torch.optim.swa_utils.AveragedModel with a decay that rises as TensorFlow's and torch_ema's does."""
    size, decay, steps = 9, 0.9, 100
    model = torch.nn.Linear(size, 1, bias=False).double()
    points = [torch.randn(1, size, generator=generator).float().double() for _ in range(steps + 1)]
    model.weight.data.copy_(points[0])
    count = 0

    def update(averages, parameters, _):
        now = min(decay, (1 + count) / (10 + count))
        torch.optim.swa_utils.get_ema_multi_avg_fn(now)(averages, parameters, _)

    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=update)
    # The first call copies: the average starts from the first parameters.
    averaged.update_parameters(model)
    after = []
    for point in points[1:]:
        count += 1
        model.weight.data.copy_(point)
        averaged.update_parameters(model)
        after.append(averaged.module.weight.detach().clone())
    kept = [0, 1, 2, 20, 79, 80, 81, steps - 1]
    return {
        "torch": torch.__version__,
        "decay": decay,
        "parameters": [numbers(point) for point in points],
        "averages": {str(i + 1): numbers(after[i]) for i in kept},
    }


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in [("muon", muon), ("average", average)]:
        made = make(torch.Generator().manual_seed(7))
        (FOLDER / f"{name}.json").write_text(json.dumps(made) + "\n")
        print(f"{name}.json: torch {torch.__version__}")


if __name__ == "__main__":
    main()
