"""What holds for all algorithms: float results stay, shared weights stay one constant."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import IN_INT8, outputs, quantized, sqnr
from small_models import build

from lowprec.config import Config
from lowprec.passes import simplify
from lowprec.quantization import prepare, refine
from lowprec.quantization.algorithms.sequence import batch_of, few_samples

rng = np.random.default_rng(29)
BEFORE = ("equalization", "smoothing", "bias_absorption")
ALL = Config.of(
    {"algorithms": {**dict.fromkeys(BEFORE, True), "bias_correction": True, "rounding": "adaptive"}}
)
FORCED = Config.of({"algorithms": ALL.to_dict()["algorithms"], **IN_INT8})
FUNCTIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Identity", "HardSwish")


@st.composite
def networks(draw) -> ir.Model:
    """A chain of layers of all kinds, with functions, sums, pooling and side branches between."""
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    channels, steps, constants = 4, [], {}

    def constant(*shape: int) -> str:
        spread = np.exp2(generator.integers(-6, 6, shape[:1])).reshape(-1, *[1] * (len(shape) - 1))
        name = f"c{len(constants)}"
        constants[name] = (generator.standard_normal(shape) * spread).astype(np.float32)
        return name

    value, branch = "x", ""
    for index in range(draw(st.integers(2, 5))):
        kind = draw(st.sampled_from(["dense", "depthwise", "pointwise", "sum", "product"]))
        following = f"v{index}"
        if kind in ("sum", "product"):
            operator = "Add" if kind == "sum" else "Mul"
            steps.append(f"{following} = {operator}({value}, {constant(channels, 1, 1)})")
        elif kind == "depthwise":
            weights, bias = constant(channels, 1, 3, 3), constant(channels)
            steps.append(
                f"{following} = Conv<group={channels}, pads=[1,1,1,1]>({value}, {weights}, {bias})"
            )
        else:
            size = 3 if kind == "dense" else 1
            more = draw(st.sampled_from([4, 6, 8]))
            weights, pads = constant(more, channels, size, size), [size // 2] * 4
            bias = f", {constant(more)}" if draw(st.booleans()) else ""
            steps.append(f"{following} = Conv<pads={pads}>({value}, {weights}{bias})")
            channels = more
        function = draw(st.sampled_from(FUNCTIONS))
        value = f"f{index}"
        steps.append(f"{value} = {function}({following})")
        if not branch and draw(st.booleans()):
            branch = f"{draw(st.sampled_from([value, following]))}"
    steps.append(f"y = Conv({value}, {constant(5, channels, 1, 1)})")
    side = ""
    if branch:
        steps.append(f"z = Abs({branch})")
        side = ", float[a,b,c,d] z"
    text = " ".join(steps)
    return build(f"m (float[1,4,9,9] x) => (float[a,b,c,d] y{side}) {{ {text} }}", constants)


def feeds_of(count: int) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(1)
    return [{"x": generator.standard_normal((1, 4, 9, 9)).astype(np.float32)} for _ in range(count)]


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks_compute_what_they_did(hub: ir.Model) -> None:
    simplify(hub)
    feeds = feeds_of(3)
    before = outputs(hub, feeds)
    prepare(hub, feeds, FORCED)
    for expected, actual in zip(before, outputs(hub, feeds), strict=True):
        scale = np.abs(expected).max() if expected.size else 0
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)
    result = quantized(hub, feeds, FORCED)
    unrefined = sqnr(hub, result.model, feeds)
    refine(hub, result, feeds, FORCED)
    assert sqnr(hub, result.model, feeds) >= unrefined - 0.5  # mean over outputs against sum


SHARED = {
    "w": (rng.standard_normal((8, 8, 1, 1)) * np.geomspace(1, 500, 8).reshape(8, 1, 1, 1)).astype(
        np.float32
    ),
    "v": rng.standard_normal((8, 1, 3, 3)).astype(np.float32),
    "b": np.linspace(20, 30, 8).astype(np.float32),
}


def tied() -> ir.Model:
    """Both pairs of layers have the same weights, as encoder and decoder, or twins, do."""
    return build(
        "m (float[1,8,9,9] x) => (float[1,8,9,9] y) {"
        " a = Conv(x, w, b) c = Relu(a) d = Conv<group=8, pads=[1,1,1,1]>(c, v)"
        " e = Conv(d, w, b) f = Relu(e) y = Conv<group=8, pads=[1,1,1,1]>(f, v) }",
        SHARED,
    )


def tied_feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": rng.standard_normal((1, 8, 9, 9)).astype(np.float32)} for _ in range(8)]


@pytest.mark.parametrize(
    "algorithms",
    [
        {"equalization": True},
        {"smoothing": True},
        {"bias_absorption": True},
        {"bias_correction": True},
        {"rounding": "adaptive"},
        ALL.to_dict()["algorithms"],
    ],
    ids=["equalization", "smoothing", "absorption", "correction", "rounding", "all"],
)
def test_shared_weights_stay_one_constant(algorithms) -> None:
    hub, feeds = tied(), tied_feeds()
    off = {**dict.fromkeys((*BEFORE, "bias_correction"), False), "rounding": "nearest"}
    config = Config.of({"algorithms": {**off, **algorithms}, **IN_INT8})
    before = outputs(hub, feeds)
    prepare(hub, feeds, config)
    for expected, actual in zip(before, outputs(hub, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    weights = [v.const_value.numpy() for v in hub.graph.initializers.values()]
    assert sum(w.shape == (8, 8, 1, 1) for w in weights) == 1
    assert sum(w.shape == (8, 1, 3, 3) for w in weights) == 1
    result = quantized(hub, feeds, config)
    unrefined = sqnr(hub, result.model, feeds)
    refine(hub, result, feeds, config)
    assert sqnr(hub, result.model, feeds) >= unrefined
    codes = [v.const_value.numpy() for v in result.model.graph.initializers.values()]
    for shape in [(8, 8, 1, 1), (8, 1, 3, 3)]:
        different = {w.tobytes() for w in codes if w.shape == shape and w.dtype == np.int8}
        stored = sum(w.shape == shape and w.dtype == np.int8 for w in codes)
        # One per scale: a bias that would not fit raises the scale of one of the two layers.
        assert stored == len(different)


def test_a_factor_for_one_reader_of_shared_weights_would_be_wrong_for_the_other() -> None:
    """Here each pair's first layer has its own weights, and the second ones share theirs."""
    hub = build(
        "m (float[1,8,9,9] x) => (float[1,8,9,9] y, float[1,8,9,9] z) {"
        " a = Conv(x, w) c = Relu(a) y = Conv<group=8, pads=[1,1,1,1]>(c, v)"
        " e = Conv(x, w2) f = Relu(e) z = Conv<group=8, pads=[1,1,1,1]>(f, v) }",
        {**SHARED, "w2": np.ascontiguousarray(SHARED["w"][::-1])},
    )
    feeds = tied_feeds()
    before = outputs(hub, feeds)
    assert prepare(hub, feeds, FORCED)[0].changed == 0
    assert sum(value.name.startswith("v") for value in hub.graph.initializers.values()) == 1
    for expected, actual in zip(before, outputs(hub, feeds), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_a_model_that_is_quantised_is_left_alone() -> None:
    hub, feeds = tied(), tied_feeds()
    result = quantized(hub, feeds, FORCED)
    before = ir.to_proto(result.model).SerializeToString()
    assert prepare(result.model, feeds, FORCED) == []
    assert ir.to_proto(result.model).SerializeToString() == before


def test_layers_that_stay_float_keep_their_weights() -> None:
    hub, feeds = tied(), tied_feeds()
    config = Config.of({"algorithms": FORCED.to_dict()["algorithms"], "precision": "bf16"})
    before = ir.to_proto(hub).SerializeToString()
    assert sum(outcome.changed for outcome in prepare(hub, feeds, config)) == 0
    assert ir.to_proto(hub).SerializeToString() == before


def test_bodies_are_left_alone() -> None:
    """What a branch reads from outside keeps its value, and the branch its weights."""
    branches = (
        "then_branch = t () => (float[1,8,9,9] p) { p = Conv<group=8, pads=[1,1,1,1]>(c, v) },"
        "else_branch = e () => (float[1,8,9,9] q) { q = Relu(c) }"
    )
    hub = build(
        "m (float[1,8,9,9] x, bool k) => (float[1,8,9,9] y, float[1,8,9,9] z) {"
        " a = Conv(x, w, b) c = Relu(a) z = Conv<group=8, pads=[1,1,1,1]>(c, v2)"
        f" y = If<{branches}>(k) }}",
        {**SHARED, "v2": SHARED["v"] * 2},
    )
    feeds = [{**feed, "k": np.array(i % 2 == 0)} for i, feed in enumerate(tied_feeds())]
    before = outputs(hub, feeds)
    assert sum(outcome.changed for outcome in prepare(hub, feeds, FORCED)) == 0
    result = quantized(hub, feeds, FORCED)
    unrefined = sqnr(hub, result.model, feeds)
    refine(hub, result, feeds, FORCED)
    assert sqnr(hub, result.model, feeds) >= unrefined
    for expected, actual in zip(before, outputs(hub, feeds), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_no_feeds_no_algorithms() -> None:
    assert prepare(tied(), [], FORCED) == []
    assert refine(tied(), quantized(tied(), tied_feeds(), FORCED), [], FORCED) == []


def test_batches_are_cut_into_samples_where_that_is_possible() -> None:
    text = "m (float[{0},4] x, float[{1},2] s) => (float[n,6] y) {{ y = Concat<axis=1>(x, s) }}"
    feeds = [
        {
            "x": np.arange(4 * n, dtype=np.float32).reshape(n, 4),
            "s": np.zeros((n, 2), np.float32),
        }
        for n in (3, 5)
    ]
    open_batch = build(text.format("n", "n"))
    assert [batch_of(open_batch, feed) for feed in feeds] == [3, 5]
    cut = few_samples(open_batch, feeds)
    assert len(cut) == 8
    assert all(array.shape[0] == 1 for feed in cut for array in feed.values())
    np.testing.assert_array_equal(cut[2]["x"], feeds[0]["x"][1:2])  # one of each feed in turn
    for fixed in (build(text.format("n", 1)), build(text.format(3, 3))):
        assert few_samples(fixed, feeds) == feeds
