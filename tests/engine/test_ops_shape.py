"""Operators that move data: NumPy's results in both layouts, for elements of every size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from one_node import run_both_layouts, run_everywhere, run_node

from lowprec._ext import _core

RNG = np.random.default_rng(4)
DTYPES = [np.uint8, np.float16, np.float32, np.int64]


def numbered(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def ints(*values):
    return np.array(values, np.int64)


def steps_of(op, inputs, attributes=None):
    """The kernels that one node costs, on an image that arrives channels last."""
    program = _core.Program()
    x = program.add_value("x", inputs[0].dtype)
    image = program.add_value("image", np.float32)
    program.add_node("Transpose", "to image", [x], [image], {"perm": [0, 3, 1, 2]})
    constants = [program.add_constant(f"c{i}", c) for i, c in enumerate(inputs[1:])]
    y, z = program.add_value("y", np.float32), program.add_value("z", np.float32)
    program.add_node(op, op, [image, *constants], [y], attributes or {})
    program.add_node("Neg", "end", [y], [z], {})
    program.set_io([x], [z])
    kernels = [row["kernel"] for row in program.plan([inputs[0].shape]).rows()]
    return kernels[: kernels.index("Neg")]


# --------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(2, 60), (2, 3, 20), (6, 20), (120,), (2, 3, 4, 5, 1), (2, 1, 3, 4, 5), (4, 5, 6)]
)
def test_reshape(shape, dtype):
    x = numbered(2, 3, 4, 5, dtype=dtype)
    result = run_both_layouts("Reshape", [x, ints(*shape)], constant=(1,))
    np.testing.assert_array_equal(result, x.reshape(shape))


def test_reshape_copies_and_infers_sizes():
    x = numbered(2, 3, 4)
    assert run_node("Reshape", [x, ints(0, -1)], constant=(1,))[0].shape == (2, 12)
    assert run_node("Reshape", [x, ints(-1, 0, 2)], constant=(1,))[0].shape == (4, 3, 2)
    empty = np.zeros((0, 4), np.float32)
    made = run_node("Reshape", [empty, ints(3, 0)], {"allowzero": 1}, constant=(1,))
    assert made[0].shape == (3, 0)
    with pytest.raises(_core.EngineError, match="cannot reshape"):
        run_node("Reshape", [x, ints(5, -1)], constant=(1,))
    with pytest.raises(_core.Unsupported, match="known"):
        run_node("Reshape", [x, ints(24)])


@pytest.mark.parametrize("axis", [-3, 0, 1, 2, 4])
def test_flatten(axis):
    x = numbered(2, 3, 4, 5)
    result = run_both_layouts("Flatten", [x], {"axis": axis})
    np.testing.assert_array_equal(result, x.reshape(int(np.prod(x.shape[:axis])), -1))


def test_squeeze_and_unsqueeze():
    x = numbered(2, 3, 1, 5)
    squeezed = run_both_layouts("Squeeze", [x, ints(2)], constant=(1,))
    np.testing.assert_array_equal(squeezed, x[:, :, 0])
    np.testing.assert_array_equal(run_both_layouts("Squeeze", [x]), x[:, :, 0])
    np.testing.assert_array_equal(run_both_layouts("Squeeze", [x], {"axes": [-2]}), x[:, :, 0])
    grown = run_both_layouts("Unsqueeze", [x[:, :, 0], ints(0, -1)], constant=(1,))
    np.testing.assert_array_equal(grown, x[None, :, :, 0, :, None])
    with pytest.raises(_core.EngineError, match="cannot squeeze axis 1"):
        run_node("Squeeze", [x, ints(1)], constant=(1,))


def test_views_of_images_cost_nothing():
    image = numbered(2, 4, 5, 3)  # channels last in memory
    pooled = numbered(2, 1, 1, 7)
    row = numbered(2, 1, 5, 3)
    assert steps_of("Flatten", [pooled]) == []
    assert steps_of("Transpose", [image], {"perm": [0, 2, 3, 1]}) == []
    assert steps_of("Reshape", [image, ints(2, 3, 20)]) == []
    assert steps_of("Squeeze", [row, ints(2)]) == []
    assert steps_of("Reshape", [image, ints(2, 60)]) == ["to channels-first"]
    assert steps_of("Transpose", [image], {"perm": [0, 3, 2, 1]}) == ["Transpose"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_transpose_of_images(order):
    x = numbered(2, 3, 17, 20)
    result = run_both_layouts("Transpose", [x], {"perm": list(order)})
    np.testing.assert_array_equal(result, x.transpose(order))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "order"),
    [((37, 50), (1, 0)), ((2, 33, 16), (0, 2, 1)), ((2, 5, 4, 16), (0, 2, 1, 3)),
     ((3, 4, 5, 2, 6), (4, 0, 3, 1, 2)), ((5,), (0,)), ((1, 7, 1), (2, 1, 0))],
)  # fmt: skip
def test_transpose(shape, order, dtype):
    x = numbered(*shape, dtype=dtype)
    result = run_everywhere("Transpose", [x], {"perm": list(order)})
    np.testing.assert_array_equal(result, x.transpose(order))
    np.testing.assert_array_equal(run_everywhere("Transpose", [x]), x.transpose())


@pytest.mark.parametrize("dtype", DTYPES)
def test_expand_and_tile(dtype):
    x = numbered(3, 1, 5, dtype=dtype)
    result = run_both_layouts("Expand", [x, ints(2, 1, 4, 1)], constant=(1,))
    np.testing.assert_array_equal(result, np.broadcast_to(x, (2, 3, 4, 5)))
    image = numbered(2, 3, 2, 4, dtype=dtype)
    result = run_both_layouts("Tile", [image, ints(1, 2, 3, 2)], constant=(1,))
    np.testing.assert_array_equal(result, np.tile(image, (1, 2, 3, 2)))
    same = run_both_layouts("Expand", [image, ints(1, 3, 2, 4)], constant=(1,))
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode):
    x = numbered(2, 12, 3, 5)
    if mode == "DCR":
        parts = x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(2, 3, 2, 2, 3, 5).transpose(0, 1, 4, 2, 5, 3)
    wide = parts.reshape(2, 3, 6, 10)
    attributes = {"blocksize": 2, "mode": mode}
    np.testing.assert_array_equal(run_both_layouts("DepthToSpace", [x], attributes), wide)
    if mode == "DCR":
        np.testing.assert_array_equal(run_both_layouts("SpaceToDepth", [wide], attributes), x)


# -------------------------------------------------------------------------------- parts of axes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat_and_split(axis, dtype):
    shapes = [[2, 3, 4, 5] for _ in range(3)]
    for i, shape in enumerate(shapes):
        shape[axis] = i + 1
    parts = [RNG.integers(0, 99, shape).astype(dtype) for shape in shapes]
    whole = np.concatenate(parts, axis)
    for last in ((), (0,), (0, 1, 2)):
        result = run_everywhere("Concat", parts, {"axis": axis}, channels_last=last)
        np.testing.assert_array_equal(result, whole)
    for last in ((), (0,)):
        made = run_node(
            "Split", [whole, ints(1, 2, 3)], {"axis": axis}, outputs=3, constant=(1,),
            channels_last=last,
        )  # fmt: skip
        for got, part in zip(made, parts, strict=True):
            np.testing.assert_array_equal(got, part)


def test_split_into_equal_parts():
    x = numbered(7, 2)
    sizes = [part.shape[0] for part in run_node("Split", [x], {"num_outputs": 3}, outputs=3)]
    assert sizes == [3, 3, 1]
    first, last = run_node("Split", [x], {"num_outputs": 3}, outputs=[True, False, True])
    np.testing.assert_array_equal(np.concatenate([first, last]), x[[0, 1, 2, 6]])
    with pytest.raises(_core.EngineError, match="add up"):
        run_node("Split", [x, ints(3, 3)], outputs=2, constant=(1,))


SLICES = [
    ((1,), (3,), (2,), (1,)),
    ((0, -3), (2**62, -1), (1, 3), (1, 1)),
    ((-1, 100), (-(2**62), 0), (3, 2), (-1, -2)),
    ((0,), (2**31 - 1,), (0,), (1,)),
    ((3,), (1,), (2,), (1,)),
    ((1, 0, 3, 4), (2, 2, 0, 0), (0, 1, 2, 3), (1, 2, -1, -3)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), SLICES)
def test_slice(starts, ends, axes, steps, dtype):
    x = numbered(2, 3, 5, 6, dtype=dtype)
    where = [slice(None)] * 4
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where[axis] = slice(start, end, step)
    inputs = [x, ints(*starts), ints(*ends), ints(*axes), ints(*steps)]
    result = run_both_layouts("Slice", inputs, constant=(1, 2, 3, 4))
    np.testing.assert_array_equal(result, x[tuple(where)])


def test_nothing_at_all_has_shapes_too():
    empty = np.zeros((2, 0, 3, 4), np.float32)
    full = numbered(2, 5, 3, 4)
    assert run_both_layouts("Concat", [empty, full], {"axis": 1}).shape == (2, 5, 3, 4)
    assert run_both_layouts("Transpose", [empty], {"perm": [3, 1, 0, 2]}).shape == (4, 0, 2, 3)
    assert run_both_layouts("Flatten", [empty]).shape == (2, 0)
    assert run_both_layouts("Neg", [empty]).shape == empty.shape
    assert run_both_layouts("Add", [empty, numbered(2, 1, 1, 1)]).shape == empty.shape
    assert run_both_layouts("Softmax", [empty], {"axis": 1}).shape == empty.shape
    assert run_both_layouts("Tile", [full, ints(0, 1, 1, 1)], constant=(1,)).shape == (0, 5, 3, 4)
    total = run_both_layouts("ReduceSum", [empty], {"axes": [1]})
    np.testing.assert_array_equal(total, np.zeros((2, 1, 3, 4)))
    pads = ints(0, 1, 0, 0, 0, 1, 0, 0)
    grown = run_both_layouts("Pad", [empty, pads, np.float32(3)], constant=(1, 2))
    np.testing.assert_array_equal(grown, np.full((2, 2, 3, 4), 3))


# ------------------------------------------------------------------------------------ gathering


@pytest.mark.parametrize("index_dtype", [np.int64, np.int32])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_gather(axis, index_dtype):
    x = numbered(3, 4, 5, dtype=np.float16)
    indices = np.array([[2, -1], [0, -3]], index_dtype)
    result = run_both_layouts("Gather", [x, indices], {"axis": axis})
    np.testing.assert_array_equal(result, np.take(x, indices, axis))
    one = run_both_layouts("Gather", [x, np.array(-2, index_dtype)], {"axis": axis})
    np.testing.assert_array_equal(one, np.take(x, -2, axis))


def test_gather_elements_and_scatter_elements():
    x = numbered(4, 5, 3)
    indices = RNG.permuted(np.broadcast_to(np.arange(-5, 0), (4, 3, 5)), axis=-1)
    indices = np.ascontiguousarray(indices.transpose(0, 2, 1))[:, :3]
    result = run_both_layouts("GatherElements", [x, indices], {"axis": 1})
    np.testing.assert_array_equal(result, np.take_along_axis(x, indices + 5, 1))
    updates = -numbered(*indices.shape) - 1
    wanted = x.copy()
    np.put_along_axis(wanted, indices + 5, updates, 1)
    result = run_both_layouts("ScatterElements", [x, indices, updates], {"axis": 1})
    np.testing.assert_array_equal(result, wanted)


def test_gather_nd_and_scatter_nd():
    x = numbered(2, 3, 4, 5)
    indices = ints(1, 2, 0, -1, -2, 1).reshape(3, 2)
    result = run_both_layouts("GatherND", [x, indices])
    np.testing.assert_array_equal(result, x[indices[:, 0], indices[:, 1]])
    batched = ints(2, 0, 1, 3).reshape(2, 1, 2)
    result = run_both_layouts("GatherND", [x, batched], {"batch_dims": 1})
    np.testing.assert_array_equal(result, np.stack([x[[0], 2, 0], x[[1], 1, 3]]))
    updates = -numbered(3, 4, 5) - 1
    wanted = x.copy()
    wanted[indices[:, 0], indices[:, 1]] = updates
    np.testing.assert_array_equal(run_both_layouts("ScatterND", [x, indices, updates]), wanted)


def test_indices_outside_of_the_data_are_errors():
    x = numbered(3, 4)
    for op, indices in (("Gather", ints(3)), ("Gather", ints(-4)), ("GatherND", ints(0, 4))):
        with pytest.raises(_core.EngineError, match="index"):
            run_node(op, [x, indices])


# -------------------------------------------------------------------------------- descriptions


def test_shape_arithmetic_needs_no_steps():
    program = _core.Program()
    x, y = program.add_value("x", np.float32), program.add_value("y", np.float32)
    shape, size, pair, joined = (program.add_value(n, np.int64) for n in ("s", "n", "p", "j"))
    program.add_node("Shape", "shape", [x], [shape], {})
    program.add_node("Gather", "size", [shape, program.add_constant("i", ints(0))], [size], {})
    rest = program.add_constant("rest", ints(-1))
    program.add_node("Concat", "pair", [size, rest], [joined], {"axis": 0})
    program.add_node("Identity", "same", [joined], [pair], {})
    program.add_node("Reshape", "flat", [x, pair], [y], {})
    z = program.add_value("z", np.float32)
    program.add_node("Neg", "neg", [y], [z], {})
    program.set_io([x], [z])
    plan = program.plan([(3, 4, 5)])
    assert [row["kernel"] for row in plan.rows()] == ["Neg"]
    assert plan.output_shapes == ((3, 20),)


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (1, None), (-2, None), (0, -1), (1, 9), (3, 1)]
)
def test_shape_and_size(start, end):
    x = numbered(2, 3, 4, 5)
    attributes = {k: v for k, v in (("start", start), ("end", end)) if v is not None}
    result = run_both_layouts("Shape", [x], attributes)
    assert result.dtype == np.int64
    assert result.tolist() == list(x.shape[slice(start, end)])
    assert run_both_layouts("Size", [x]) == 120


def test_made_up_data():
    shape = ints(2, 3)
    filled = run_everywhere(
        "ConstantOfShape", [shape], {"value": [2.5], "value_dtype": 1}, constant=(0,)
    )
    np.testing.assert_array_equal(filled, np.full((2, 3), 2.5, np.float32))
    whole = run_everywhere(
        "ConstantOfShape", [shape], {"value": [-7], "value_dtype": 6}, constant=(0,)
    )
    np.testing.assert_array_equal(whole, np.full((2, 3), -7, np.int32))
    assert whole.dtype == np.int32
    zeros = run_everywhere("ConstantOfShape", [shape], constant=(0,))
    np.testing.assert_array_equal(zeros, np.zeros((2, 3), np.float32))
    for first, last, step in ((0, 10, 3), (5, -5, -2), (4, 4, 1)):
        parts = [np.array(v, np.int64) for v in (first, last, step)]
        result = run_everywhere("Range", parts, constant=(0, 1, 2))
        np.testing.assert_array_equal(result, np.arange(first, last, step))
    parts = [np.float32(v) for v in (0.5, 2.1, 0.4)]
    result = run_everywhere("Range", parts, constant=(0, 1, 2))
    np.testing.assert_allclose(result, [0.5, 0.9, 1.3, 1.7], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot(axis):
    indices = np.array([[0, 2, -1], [1, 7, 3]])
    result = run_everywhere("OneHot", [indices, ints(4), ints(2, 5)], {"axis": axis}, constant=(1,))
    wanted = np.full((2, 3, 4), 2)
    for row, column in np.ndindex(2, 3):
        if indices[row, column] < 4:  # 7 is outside: all off
            wanted[row, column, indices[row, column]] = 5
    np.testing.assert_array_equal(result, np.moveaxis(wanted, -1, axis))


@pytest.mark.parametrize("k", [-7, -1, 0, 2, 9])
def test_triangles(k):
    x = numbered(2, 4, 6, dtype=np.int64) + 1
    for upper, function in ((1, np.triu), (0, np.tril)):
        result = run_both_layouts("Trilu", [x, ints(k)[0]], {"upper": upper}, constant=(1,))
        np.testing.assert_array_equal(result, function(x, k))


def test_what_is_not_native_is_refused():
    x = numbered(3, 4)
    with pytest.raises(_core.EngineError, match="none, add, mul, min or max"):
        run_node("ScatterND", [x, ints(0).reshape(1, 1), x[:1]], {"reduction": "sum"})
    with pytest.raises(_core.Unsupported, match="known"):
        run_node("Range", [np.array(v, np.int64) for v in (0, 1, 1)])
