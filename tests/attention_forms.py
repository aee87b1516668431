"""Attention as arithmetic, in the forms that exporters write, as small models."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from small_models import build

B, S, T, H, D = 2, 5, 7, 3, 4

HEADS = "q = Transpose<perm=[0,2,1,3]>(x) k = Transpose<perm=[0,2,3,1]>(z) "
TAIL = "p = Softmax<axis=-1>(m) v = Transpose<perm=[0,2,1,3]>(w) y = MatMul(p, v)"
FORMS = {
    "plain": f"{HEADS} m = MatMul(q, k) {TAIL}",
    "scaled": f"{HEADS} a = MatMul(q, k) m = Mul(a, half) {TAIL}",
    "divided": f"{HEADS} a = MatMul(q, k) m = Div(a, three) {TAIL}",
    "added": f"{HEADS} a = MatMul(q, k) s = Mul(half, a) m = Add(s, mask) {TAIL}",
    "a root of the scale each": (
        f"{HEADS} r = Mul(q, half) t = Mul(half, k) a = MatMul(r, t) m = Add(a, mask) {TAIL}"
    ),
    "mask first": f"{HEADS} a = MatMul(q, k) m = Add(mask, a) {TAIL}",
    "chosen": f"{HEADS} a = MatMul(q, k) s = Mul(a, half) m = Where(chosen, s, low) {TAIL}",
    "chosen with ones": (
        f"{HEADS} a = MatMul(q, k) s = Mul(a, half) h = Shape(s) o = Expand(yes, h)"
        f" c = And(o, chosen) m = Where(c, s, low) {TAIL}"
    ),
    "a mask of the scores' shape": (
        f"{HEADS} a = MatMul(q, k) s = Mul(a, half) h = Shape(s) f = Expand(yes, h)"
        f" c = Trilu<upper=0>(f) m = Where(c, s, low) {TAIL}"
    ),
}
CONSTANTS = {
    "half": np.float32(0.5),
    "three": np.float32(3),
    "low": np.float32(-3e38),
    "yes": np.array([True]),
    "yes_all": np.array(True),
    "minus": np.float32(-0.5),
    "middle": np.uint8(128),
}


def model(body: str, *, opset: int = 23, heads: int = H) -> ir.Model:
    inputs = f"float[{B},{S},{H},{D}] x, float[{B},{T},{H},{D}] z, float[{B},{T},{heads},{D}] w"
    if "mask" in body:
        inputs += f", float[{B},1,{S},{T}] mask"
    if "chosen" in body:
        inputs += f", bool[{B},1,{S},{T}] chosen"
    used = {name: array for name, array in CONSTANTS.items() if name in body.replace(",", " ")}
    return build(f"m ({inputs}) => (float[{B},{H},{S},{D}] y) {{ {body} }}", used, opset=opset)


def feeds(graph: ir.Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    given: dict[str, np.ndarray] = {}
    for value in graph.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        shape = [int(size) for size in value.shape]
        if value.name == "chosen":
            chosen = random.random(shape) < 0.6
            chosen[0, :, 1] = False  # a row of which nothing is chosen
            given[value.name] = chosen
        else:
            given[value.name] = random.standard_normal(shape).astype(np.float32)
    return given
