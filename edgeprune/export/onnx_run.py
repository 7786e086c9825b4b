"""ONNX Runtime on this machine: a file ready to run, and what the runtime makes of it before it does."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from edgeprune.export.onnx_store import DATA, Stored
from edgeprune.worker.infer import onnx_session

_WEIGHTS_OF_OPTIMISED = "session.optimized_model_external_initializers_file_name"
"""ONNX Runtime's option for a file beside the optimised one that it writes."""


def session_of(file: Stored) -> Any:
    """A file ready to run on this machine's processor, computing what a processor of its kind computes.

    x86 without VNNI adds two products of bytes in 16 bits, which saturates: a network whose activations are signed
    bytes, as files for ARM and TensorRT have them, came out with a cosine of 0.73 to the model in place of 0.86 (ONNX
    Runtime's page "Quantize ONNX models" names the instruction, VPMADDUBSW). No processor that such a file is made for
    does that, so it is run exactly here. A file for x86 is run as programs run it: its board may saturate as well.

    Args:
        file: its bytes, or where it lies.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        Exception: whatever the runtime raises of a file that it cannot read.
    """
    return onnx_session(_named(file), _has_signed_activations(file))


def _named(file: Stored) -> str | bytes:
    """A file as the runtime takes it."""
    return file if isinstance(file, bytes) else str(file)


def _has_signed_activations(file: Stored) -> bool:
    """Whether a file turns floats to int8 while it runs. What cannot be read is left to the runtime to refuse."""
    import onnx

    try:
        graph = onnx.load_from_string(file if isinstance(file, bytes) else file.read_bytes()).graph
    except Exception:  # the parser's own classes
        return False
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zeros = (node.input[2] for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2)
    return any(kinds.get(zero) == onnx.TensorProto.INT8 for zero in zeros)


def optimised(file: Stored) -> dict[str, Any]:
    """Load a file with all of ONNX Runtime's optimisations on and count what is left.

    Args:
        file: its bytes, or where it lies.

    Returns:
        `nodes_run` and `operators_run` {name: count}; nothing where ONNX Runtime cannot load or write it, which parity
        then tells.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        if not isinstance(file, bytes):  # else it cannot be written, either
            options.add_session_config_entry(_WEIGHTS_OF_OPTIMISED, path.name + DATA)
        try:
            onnxruntime.InferenceSession(_named(file), options, providers=["CPUExecutionProvider"])
            nodes = onnx.load(path, load_external_data=False).graph.node
        except Exception:  # the runtime raises many unrelated classes
            return {}
    kinds = Counter(node.op_type for node in nodes)
    return {"nodes_run": len(nodes), "operators_run": dict(sorted(kinds.items()))}
