"""Models of one recurrent layer."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def layer(op, *, hidden=24, inputs=12, directions=1, outputs=("Y",), bias=True, **attributes):
    """Return x (T, N, I) -> Relu -> a recurrent layer, weights of a sensible size."""
    rng = np.random.default_rng(5)
    gates = GATES[op] * hidden
    constants = {
        "W": rng.normal(size=(directions, gates, inputs)) * 0.4,
        "R": rng.normal(size=(directions, gates, hidden)) * 0.3,
        "B": rng.normal(size=(directions, 2 * gates)) * 0.1,
    }
    names = ["x", "W", "R", "B" if bias else ""]
    nodes = [helper.make_node(op, names, list(outputs), "layer", hidden_size=hidden, **attributes)]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "recurrent",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "N", inputs])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                for name in filter(None, outputs)
            ],
            [numpy_helper.from_array(a.astype(np.float32), name) for name, a in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )  # fmt: skip
    return proto


FORMS = [
    ("LSTM", {}),
    ("LSTM", {"directions": 2, "direction": "bidirectional"}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"direction": "reverse"}),
    ("RNN", {"activations": ["Tanh"]}),
]
