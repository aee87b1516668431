"""Moving transposes leaves numbers, names and shapes as they were, and few transposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowprec
from lowprec.adapters.tensorflow.layout import channels_first
from lowprec.graph import load

TO_LAST = {3: [0, 2, 1], 4: [0, 2, 3, 1], 5: [0, 2, 3, 4, 1]}
TO_FIRST = {3: [0, 2, 1], 4: [0, 3, 1, 2], 5: [0, 4, 1, 2, 3]}


class Drawn:
    """A graph under construction; every value has a known shape, channels last."""

    def __init__(self, shape: Sequence[int]) -> None:
        """Start with the input x."""
        self.input = self.typed("x", shape)
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.random = np.random.default_rng(0)

    @staticmethod
    def typed(name: str, shape: Sequence[int] | None) -> ir.Value:
        """Return a f32 value."""
        held = None if shape is None else ir.Shape(shape)
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=held)

    def constant(self, array: object) -> ir.Value:
        """Return an initializer."""
        held = np.asarray(array)
        name = f"c{len(self.constants)}"
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(held.dtype)),
            shape=ir.Shape(held.shape),
            const_value=ir.Tensor(held, name=name),
        )
        self.constants.append(value)
        return value

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int] | None,
        outputs: int = 1,
        **attributes: object,
    ) -> ir.Value:
        """Return the first output of a new node."""
        made = [self.typed(f"v{len(self.nodes)}_{index}", shape) for index in range(outputs)]
        node = ir.node(op_type, inputs, attributes=attributes, outputs=made)  # type: ignore[arg-type]
        node.name = f"n{len(self.nodes)}"
        self.nodes.append(node)
        return made[0]

    def model(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """Return the model."""
        graph = ir.Graph(
            [self.input],
            list(outputs),
            nodes=self.nodes,
            initializers=self.constants,
            opset_imports={"": 21},
            name="drawn",
        )
        return ir.Model(graph, ir_version=10)


def shape_of(value: ir.Value) -> list[int]:
    """Return a known shape."""
    assert value.shape is not None
    return [int(size) for size in value.shape]  # type: ignore[arg-type]


def convolve(drawn: Drawn, x: ir.Value) -> ir.Value:
    """A convolution of one pixel between two transposes, as the translation writes it."""
    shape = shape_of(x)
    rank, channels = len(shape), shape[-1]
    if rank not in TO_FIRST:
        return x
    first = [shape[axis] for axis in TO_FIRST[rank]]
    turned = drawn.add("Transpose", [x], None, perm=TO_FIRST[rank])
    kernel = drawn.random.normal(0, 0.5, (3, channels, *[1] * (rank - 2))).astype(np.float32)
    made = drawn.add("Conv", [turned, drawn.constant(kernel)], None)
    assert len(first) == rank
    return drawn.add("Transpose", [made], [*shape[:-1], 3], perm=TO_LAST[rank])


def relu(drawn: Drawn, x: ir.Value) -> ir.Value:
    """One operand."""
    return drawn.add("Relu", [x], shape_of(x))


def scale(drawn: Drawn, x: ir.Value) -> ir.Value:
    """A constant for each channel."""
    numbers = drawn.random.normal(1, 0.2, shape_of(x)[-1]).astype(np.float32)
    return drawn.add("Mul", [x, drawn.constant(numbers)], shape_of(x))


def shift(drawn: Drawn, x: ir.Value) -> ir.Value:
    """A constant that varies along another axis, the constant first."""
    shape = shape_of(x)
    numbers = drawn.random.normal(0, 1, [shape[-2], 1]).astype(np.float32)
    return drawn.add("Sub", [drawn.constant(numbers), x], shape)


def twice(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Both operands are the same image."""
    return drawn.add("Add", [x, relu(drawn, x)], shape_of(x))


def mean_of_channels(drawn: Drawn, x: ir.Value) -> ir.Value:
    """What a layer norm takes off: one operand is turned, one is not."""
    shape = shape_of(x)
    axes = drawn.constant(np.asarray([-1], np.int64))
    mean = drawn.add("ReduceMean", [x, axes], [*shape[:-1], 1], keepdims=1)
    return drawn.add("Sub", [x, mean], shape)


def excite(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Squeeze and excitation, its vector made an image by Reshape."""
    shape = shape_of(x)
    if len(shape) != 4:
        return x
    axes = drawn.constant(np.asarray([1, 2], np.int64))
    mean = drawn.add("ReduceMean", [x, axes], [shape[0], shape[3]], keepdims=0)
    target = drawn.constant(np.asarray([-1, 1, 1, shape[3]], np.int64))
    pixel = drawn.add("Reshape", [mean, target], [shape[0], 1, 1, shape[3]])
    return drawn.add("Mul", [convolve(drawn, scale(drawn, pixel)), convolve(drawn, x)],
                     [*shape[:3], 3])  # fmt: skip


def reduced(drawn: Drawn, x: ir.Value) -> ir.Value:
    """A maximum over the first spatial axis, which stays."""
    shape = shape_of(x)
    axes = drawn.constant(np.asarray([1], np.int64))
    return drawn.add("ReduceMax", [x, axes], [shape[0], 1, *shape[2:]], keepdims=1)


def dropped(drawn: Drawn, x: ir.Value) -> ir.Value:
    """A sum over the second axis from the end, which goes."""
    shape = shape_of(x)
    if len(shape) < 4:
        return x
    axes = drawn.constant(np.asarray([-2], np.int64))
    return drawn.add("ReduceSum", [x, axes], [*shape[:-2], shape[-1]], keepdims=0)


def padded(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Zeros before the first and after the last spatial axis."""
    shape = shape_of(x)
    before, after = [0] * len(shape), [0] * len(shape)
    before[1], after[-2] = 1, 2
    pads = drawn.constant(np.asarray([*before, *after], np.int64))
    sizes = [a + b + c for a, b, c in zip(shape, before, after, strict=True)]
    return drawn.add("Pad", [x, pads], sizes, mode="constant")


def sliced(drawn: Drawn, x: ir.Value) -> ir.Value:
    """All but the first of the first spatial axis, backwards."""
    shape = shape_of(x)
    if shape[1] < 2:
        return x
    numbers = [
        drawn.constant(np.asarray([number], np.int64))
        for number in (-1, -shape[1], 1 - len(shape), -1)
    ]
    return drawn.add("Slice", [x, *numbers], [shape[0], shape[1] - 1, *shape[2:]])


def joined(drawn: Drawn, x: ir.Value) -> ir.Value:
    """The channels twice, and once."""
    shape = shape_of(x)
    both = drawn.add("Concat", [x, relu(drawn, x)], [*shape[:-1], 2 * shape[-1]], axis=-1)
    return drawn.add("Split", [both], shape, outputs=2, axis=-1, num_outputs=2)


def widened(drawn: Drawn, x: ir.Value) -> ir.Value:
    """One more axis before the images, as one-dimensional convolutions have it."""
    shape = shape_of(x)
    if len(shape) > 4:
        return x
    at = drawn.constant(np.asarray([1], np.int64))
    return drawn.add("Unsqueeze", [x, at], [shape[0], 1, *shape[1:]])


def narrowed(drawn: Drawn, x: ir.Value) -> ir.Value:
    """One axis less, where it is 1."""
    shape = shape_of(x)
    if len(shape) < 4 or shape[1] != 1:
        return x
    at = drawn.constant(np.asarray([1], np.int64))
    return drawn.add("Squeeze", [x, at], [shape[0], *shape[2:]])


def picked(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Channels in another order."""
    order = drawn.constant(np.arange(shape_of(x)[-1], dtype=np.int64)[::-1].copy())
    return drawn.add("Gather", [x, order], shape_of(x), axis=-1)


def row(drawn: Drawn, x: ir.Value) -> ir.Value:
    """One row: its axis goes."""
    shape = shape_of(x)
    if len(shape) < 4:
        return x
    index = drawn.constant(np.asarray(0, np.int64))
    return drawn.add("Gather", [x, index], [shape[0], *shape[2:]], axis=1)


def tiled(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Twice along the last spatial axis."""
    shape = shape_of(x)
    repeats = [1] * len(shape)
    repeats[-2] = 2
    sizes = [a * b for a, b in zip(shape, repeats, strict=True)]
    return drawn.add("Tile", [x, drawn.constant(np.asarray(repeats, np.int64))], sizes)


def softmax(drawn: Drawn, x: ir.Value) -> ir.Value:
    """Along the channels, where it stays."""
    return drawn.add("Softmax", [x], shape_of(x), axis=-1)


Step = Callable[[Drawn, ir.Value], ir.Value]
STEPS: tuple[Step, ...] = (
    *(convolve, relu, scale, shift, twice, mean_of_channels, excite, reduced, dropped, padded),
    *(sliced, joined, widened, narrowed, picked, row, tiled, softmax),
)


def graph_of(steps: Sequence[Step], shape: Sequence[int], *, often: bool = False) -> ir.Model:
    """Return the steps in a row; `often`: every fifth value is an output too."""
    drawn = Drawn(shape)
    value, outputs = drawn.input, []
    for number, step in enumerate(steps):
        made = step(drawn, value)
        if often and number % 5 == 4 and made is not value and made not in outputs:
            outputs.append(made)
        value = made
    if value is drawn.input:
        value = relu(drawn, value)
    if value not in outputs:
        outputs.append(value)
    return drawn.model(outputs)


def answers(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    """Return what a model makes of x."""
    return lowprec.compile(load(model.clone())).run({"x": x})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=12),
    st.sampled_from([(2, 5, 3), (2, 3, 4, 3), (1, 1, 1, 2), (1, 2, 3, 2, 3)]),
)
def test_any_graph_keeps_its_numbers_and_names(steps: list[Step], shape: tuple[int, ...]) -> None:
    before, after = (graph_of(steps, shape, often=True) for _ in range(2))
    channels_first(after)
    assert [value.name for value in after.graph.outputs] == [
        value.name for value in before.graph.outputs
    ]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for a, b in zip(answers(before, x), answers(after, x), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(a).max())))


def kinds(model: ir.Model) -> list[str]:
    """Return the operators, in order."""
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    "between",
    [relu, scale, shift, twice, reduced, padded, sliced, joined, picked, tiled],
    ids=lambda step: step.__name__,
)
def test_between_two_convolutions_nothing_is_transposed(between: Step) -> None:
    model = graph_of([convolve, between, convolve], (2, 3, 4, 3))
    channels_first(model)
    assert kinds(model).count("Transpose") == 2
    assert kinds(model)[0] == kinds(model)[-1] == "Transpose"


def test_what_comes_before_the_first_convolution_is_transposed_at_the_input() -> None:
    model = graph_of([scale, shift, padded, convolve], (2, 3, 4, 3))
    channels_first(model)
    assert kinds(model) == ["Transpose", "Mul", "Sub", "Pad", "Conv", "Transpose"]


def test_squeeze_and_excitation_pools_and_needs_no_reshape() -> None:
    model = graph_of([convolve, excite], (2, 3, 4, 3))
    channels_first(model)
    assert "Reshape" not in kinds(model)
    assert "Squeeze" not in kinds(model)
    assert kinds(model).count("GlobalAveragePool") == 1
    assert kinds(model).count("Transpose") == 2


def test_a_layer_norm_stays_where_it_can_be_recognised() -> None:
    model = graph_of([convolve, mean_of_channels, softmax, convolve], (2, 3, 4, 3))
    channels_first(model)
    mean = next(node for node in model.graph if node.op_type == "ReduceMean")
    axes = mean.inputs[1]
    assert axes is not None
    assert axes.const_value is not None
    assert axes.const_value.numpy().tolist() == [-1]


def test_one_dimensional_convolutions_lose_their_transposes_too() -> None:
    model = graph_of([widened, convolve, narrowed, relu, widened, convolve, narrowed], (2, 5, 3))
    channels_first(model)
    assert kinds(model).count("Transpose") == 2


def test_a_long_chain_ends_soon() -> None:
    model = graph_of([convolve, *[relu, scale] * 1500, convolve], (1, 2, 2, 3))
    channels_first(model)
    assert kinds(model).count("Transpose") == 2
    late = graph_of([*[relu, scale] * 1500, convolve], (1, 2, 2, 3))
    channels_first(late)
    assert kinds(late)[0] == "Transpose"
