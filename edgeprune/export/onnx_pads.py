"""Zeros in front of a maximum in ONNX: onnxsim and ONNX Runtime take them for the padding of MaxPool, which is none.

MaxPool pads with minus infinity, so that the fused operator gives another maximum wherever all pixels are negative
(https://github.com/onnxsim/onnxsim/issues/290; ONNX Runtime's PadFusion, as of 1.31.1). Neither fuses another value
than 0, so the zeros become a number that is none to either and none to the network.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NOTHING = 1e-30
"""In place of 0. The conversion to fp16 makes the smallest numbers it has of it, not 0."""


def keep_pads_from_max_pools(graph: Any) -> None:
    """Let no Pad of zeros that a MaxPool reads be fused with it. In place.

    Args:
        graph: a GraphProto in fp32.
    """
    import onnx

    read_by_max_pool = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    values |= {
        node.output[0]: onnx.numpy_helper.to_array(one.t)
        for node in graph.node
        if node.op_type == "Constant"
        for one in node.attribute
        if one.name == "value"
    }
    for number, node in enumerate(graph.node):
        if node.op_type != "Pad" or node.output[0] not in read_by_max_pool:
            continue
        modes = [one.s for one in node.attribute if one.name == "mode"]
        value = values.get(node.input[2], np.ones(1)) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        if modes in ([], [b"constant"]) and not value.any():
            name = f"nothing_{number}"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(NOTHING, np.float32), name))
            inputs = [*node.input[:2], name, *node.input[3:]]
            del node.input[:]
            node.input.extend(inputs)
