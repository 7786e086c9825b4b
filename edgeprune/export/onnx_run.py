"""What ONNX Runtime makes of a file before it runs it: its own optimisations, of this machine's processor."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any


def optimised(content: bytes) -> dict[str, Any]:
    """Load a file with all of ONNX Runtime's optimisations on and count what is left.

    Args:
        content: of the file.

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
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            nodes = onnx.load(path, load_external_data=False).graph.node
        except Exception:  # the runtime raises many unrelated classes
            return {}
    kinds = Counter(node.op_type for node in nodes)
    return {"nodes_run": len(nodes), "operators_run": dict(sorted(kinds.items()))}
