"""Does the harness add anything to the times it reports? Its worker against a bare loop, and LiteRT's own tool.

    python benchmarks/harness.py FILE.onnx|FILE.tflite ... [--threads 1,2] [--rounds 16]

For each file and thread count, in turns (A B C, C B A, ...), each in a process of its own:

- harness: a block of `edgeprune.worker`, the process that `edgeprune bench` times with;
- bare: a loop around the runtime's own call and nothing else, with no setting of the runtime but the threads;
- tool: `benchmark_litert_model.py`, which Google ships in the LiteRT package, for TFLite files. It uses LiteRT's newer
  interface (CompiledModel), times with inputs of its own, and rounds to 0.01 ms. ONNX Runtime's `onnxruntime_perf_test`
  is not in its package.

Printed are the medians of the turns' p50, and p50(other) as a share of p50(harness) with its 95 % interval over the
rounds: 1.00 means that the harness adds nothing. Each process runs its files for 0.3 s a turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from edgeprune.bench.session import WARM_UP, save_inputs
from edgeprune.bench.single import made_up_images, single_files
from edgeprune.stats import ratio_interval
from edgeprune.worker.conduct import Child
from edgeprune.worker.schedule import turns

SECONDS = 0.3
BARE = """
import sys, time
import numpy as np
path, inputs, layout, threads, seconds = sys.argv[1:]
image = np.load(inputs)[:1]
if path.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    def call():
        session.run(None, feed)
else:
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(model_path=path, num_threads=int(threads))
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    image = np.ascontiguousarray(image.transpose(0, 2, 3, 1) if layout == "NHWC" else image)
    def call():
        interpreter.set_tensor(entry, image)
        interpreter.invoke()
        interpreter.get_tensor(output)
for line in sys.stdin:
    times, end = [], time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
    print("p50", sorted(times)[len(times) // 2], flush=True)
"""

Side = Callable[[], float]


def bare(stack: ExitStack, path: Path, inputs: Path, layout: str, threads: int) -> Side:
    """p50 in ns of a bare loop, each time it is called."""
    command = [sys.executable, "-c", BARE, path, inputs, layout, str(threads), str(SECONDS)]
    pipe = subprocess.PIPE
    process = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL))
    stack.callback(process.kill)
    assert process.stdin
    assert process.stdout
    asked, answers = process.stdin, process.stdout

    def turn() -> float:
        asked.write(b"go\n")
        asked.flush()
        for line in answers:
            if line.startswith(b"p50 "):
                return float(line.split()[1])
        raise SystemExit(f"the bare loop of {path} ended")

    turn()  # warms up
    return turn


def harness(stack: ExitStack, path: Path, inputs: Path, layout: str, runtime: str, threads: int) -> Side:
    """p50 in ns of a block of the worker, each time it is called."""
    child = stack.enter_context(Child(path.name, 300))
    child.ask("load", path=str(path), runtime=runtime, threads=threads, inputs=str(inputs), layout=layout)
    child.ask("warm_up", **WARM_UP)
    return lambda: statistics.median(child.ask("block", seconds=SECONDS)["samples_ns"])


def tool(path: Path, scratch: Path, threads: int, runs: int) -> Side:
    """p50 in ns that LiteRT's own tool reports, each time it is called."""
    result = scratch / "tool.json"
    command = [
        *(sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={path}"),
        *(f"--num_threads={threads}", f"--num_runs={runs}", "--warmup_runs=10", f"--result_json={result}"),
    ]

    def turn() -> float:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return float(json.loads(result.read_text())["latency"]["median_ms"]) * 1e6

    return turn


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--threads", default="1", help="e.g. 1,2")
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    print("| file | threads | harness p50, ms | against | p50, ms | of the harness [95 %] |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        for path in options.files:
            (one,) = single_files([path])
            inputs = save_inputs(made_up_images(one.input_shape)[:1], Path(folder))
            for threads in map(int, options.threads.split(",")):
                with ExitStack() as stack:
                    sides = {
                        "harness": harness(stack, path, inputs, one.layout, one.runtime, threads),
                        "bare loop": bare(stack, path, inputs, one.layout, threads),
                    }
                    if one.format == "tflite":
                        runs = max(10, round(SECONDS * 1e9 / sides["harness"]()))
                        sides["LiteRT's tool"] = tool(path, Path(folder), threads, runs)
                    times: dict[str, list[float]] = {name: [] for name in sides}
                    for _, order in islice(turns(list(sides), seed=0), options.rounds):
                        for name in order:
                            times[name].append(sides[name]())
                ours = times.pop("harness")
                for name, taken in times.items():
                    ratio, low, high = ratio_interval(taken, ours)
                    p50, other = np.median(ours) / 1e6, np.median(taken) / 1e6
                    row = (
                        path.name,
                        threads,
                        f"{p50:.3f}",
                        name,
                        f"{other:.3f}",
                        f"{ratio:.3f} [{low:.3f}, {high:.3f}]",
                    )
                    print(f"| {' | '.join(map(str, row))} |", flush=True)


main()
