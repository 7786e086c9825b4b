"""Is `edgeprune.inference` worth it? The module against the folded program, in turns.

python benchmarks/inference.py [MODEL] [ROUNDS]
"""

import sys
from time import perf_counter_ns

import torch

from edgeprune.inference import Inference
from edgeprune.model import load_model
from edgeprune.program import capture
from edgeprune.stats import ratio_interval

name = sys.argv[1] if len(sys.argv) > 1 else "mobilenet_v2"
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 12
model = load_model(name)
infer = Inference(capture(model.module, model.input.shape), model.module)
images = torch.randn(32, *model.input.shape, generator=torch.Generator().manual_seed(0))
times: tuple[list[int], list[int]] = ([], [])
with torch.inference_mode():
    difference = float((model.module(images) - infer(images)).abs().max())
    for _ in range(rounds):
        for run, taken in zip((model.module, infer), times, strict=True):
            start = perf_counter_ns()
            run(images)
            taken.append(perf_counter_ns() - start)
ratio, low, high = ratio_interval(*times)
print(f"{name}: {ratio:.2f}x [{low:.2f}, {high:.2f}] as fast as the module, outputs differ by {difference:.1e}")
