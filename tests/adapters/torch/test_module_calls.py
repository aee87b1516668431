"""The returned module is called as the original is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch_modules import Answer, Net, Several, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule, example, load
from lowprec.errors import InputError, UnsupportedError


@pytest.fixture(scope="session")
def several() -> CompiledModule:
    ids = torch.randint(0, 50, (2, 6))
    inputs = example(ids=ids, mask=torch.ones(2, 6))
    return lowprec.compile(seeded(Several), example_inputs=inputs)


def _file(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
) -> Path:
    sides = [
        [helper.make_tensor_value_info(name, kind, sizes) for name, (kind, sizes) in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *sides)
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


# ---- Arguments ----


def test_the_signature_is_the_original_one(
    compiled: CompiledModule, quantised: QuantizedModule, several: CompiledModule
) -> None:
    for module, original in ((compiled, Net), (quantised, Net), (several, Several)):
        assert inspect.signature(module.forward) == inspect.signature(original().forward)
        assert type(module).forward.__doc__


def test_arguments_bind_as_the_original_binds_them(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    with torch.no_grad():
        expected = seeded(Net)(x)["y"]
    y = compiled(x)["y"]
    torch.testing.assert_close(y, expected)
    for again in (
        compiled(x=x),
        compiled(x, 1.0),
        compiled(x, scale=1.0, mask=None),
        compiled(mask=None, x=x),
    ):
        assert torch.equal(again["y"], y)


def test_an_option_that_was_captured_must_be_given_again() -> None:
    x = torch.randn(3, 8)
    module = lowprec.compile(seeded(Net), example_inputs=example(x, scale=2.0))
    y = module(x, 2.0)["y"]
    for again in (module(x, scale=2.0), module(scale=2.0, x=x), module(x, 2.0, mask=None)):
        assert torch.equal(again["y"], y)
    with torch.no_grad():
        torch.testing.assert_close(y, seeded(Net)(x, 2.0)["y"])
    with pytest.raises(InputError, match="'scale' is missing"):
        module(x)
    for other in (1.0, 3, None):
        with pytest.raises(InputError, match="'scale' is"):
            module(x, scale=other)


def test_keywords_keep_their_places_in_any_order(several: CompiledModule) -> None:
    ids, mask = torch.randint(0, 50, (3, 6)), torch.tensor([1.0, 1, 0, 1, 0, 0]).expand(3, 6)
    with torch.no_grad():
        expected = seeded(Several)(ids, mask)
    calls = [
        several(ids, mask),
        several(mask=mask, ids=ids),
        several(ids, mask=mask),
        several(ids, mask, None),
        several(mask=mask, want=None, ids=ids),
    ]
    for answer in calls:
        assert type(answer) is Answer
        assert answer.hidden is None
        torch.testing.assert_close(answer.logits, expected.logits)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda q, x: q(), "argument 'x' is missing"),
        (lambda q, x: q(x, 2.0), "argument 'scale' was left out .* leave it out (it is 1.0)"),
        (lambda q, x: q(x, mask=x), "argument 'mask' was left out"),
        (lambda q, x: q(x, 1.0, x), "3 positional arguments were given, forward takes 2"),
        (lambda q, x: q(x, x=x), "argument 'x' was given twice"),
        (lambda q, x: q(x, 1.0, scale=1.0), "argument 'scale' was given twice"),
        (lambda q, x: q(scale=1.0), "argument 'x' is missing"),
        (lambda q, x: q(x, other=1), "forward has no argument 'other'; it has x, scale, mask"),
        (lambda q, x: q([x]), "argument 'x' is a list of 1, the module was captured with a tensor"),
        (lambda q, x: q(x.numpy()), "'x' is a ndarray; accepted are tensors"),
        (lambda q, x: q(x.long()), "argument 'x' is torch.int64; .* torch.float32"),
        (lambda q, x: q(x[0]), "input 'x' has shape [8] (rank 1)"),
        (lambda q, x: q(x[:, :7]), "input 'x' has size 7 on axis 1"),
        (lambda q, x: q(x.to("meta")), "argument 'x' is on 'meta'; .* runs on the CPU"),
        (lambda q, x: q(x.to_sparse()), "the layout torch.sparse_coo; .* tensor.to_dense()"),
        (lambda q, x: q(x.clone().requires_grad_()), "argument 'x' requires a gradient"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(compiled: CompiledModule, call: object, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says).replace(r"\.\*", ".*")):
        call(compiled, torch.randn(3, 8))  # type: ignore[operator]


def test_a_gradient_is_refused_only_where_one_would_be_made(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    y = compiled(x)["y"]
    wanting = nn.Parameter(x)
    with torch.no_grad():
        assert torch.equal(compiled(wanting)["y"], y)
    with torch.inference_mode():
        assert torch.equal(compiled(wanting)["y"], y)
        assert compiled(x)["y"].is_inference()
    assert not y.requires_grad
    assert torch.equal(compiled(nn.Parameter(x, requires_grad=False))["y"], y)


# ---- Memory ----


@pytest.mark.parametrize(
    "changed",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.stack([x, x], 2)[..., 0],
        lambda x: torch._neg_view(-x),
        lambda x: torch.cat([torch.zeros(1, 8), x])[1:],
        lambda x: x[[2, 1, 0]].flip(0),
        lambda x: torch.complex(torch.zeros(3, 8), -x).conj().imag,
    ],
    ids=["transposed", "strided", "negative", "offset", "flipped", "conjugate"],
)
def test_any_strides_give_the_same_bits(compiled: CompiledModule, changed: object) -> None:
    x = torch.randn(3, 8)
    other = changed(x)  # type: ignore[operator]
    assert torch.equal(other, x)
    assert torch.equal(compiled(other)["y"], compiled(x)["y"])


def test_expanded_inputs(compiled: CompiledModule) -> None:
    row = torch.randn(1, 8)
    expected = compiled(row.repeat(5, 1))["y"]
    assert torch.equal(compiled(row.expand(5, 8))["y"], expected)


def test_channels_last(tmp_path: Path) -> None:
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    shapes: list[int | str] = ["b", 3, "h", "w"]
    path = _file(
        tmp_path / "m.onnx",
        [node],
        {"x": (TensorProto.FLOAT, shapes)},
        {"y": (TensorProto.FLOAT, ["b", 3, 1, 1])},
    )
    module = load(path)
    x = torch.randn(2, 3, 6, 5)
    y = module(x.to(memory_format=torch.channels_last))
    assert torch.equal(y, module(x))
    assert y.is_contiguous()


def test_results_belong_to_the_caller(tmp_path: Path, compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    first = compiled(x)["y"]
    kept = first.clone()
    second = compiled(torch.randn(3, 8))["y"]
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.equal(compiled(x)["y"], kept)

    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]
    sizes: list[int | str] = ["b", 2]
    kind = TensorProto.FLOAT
    path = _file(
        tmp_path / "m.onnx", nodes, {"x": (kind, sizes)}, {"y": (kind, sizes), "z": (kind, sizes)}
    )
    module = load(path)
    for _ in range(2):
        x = torch.randn(3, 2)
        y, z = module(x)
        assert torch.equal(y, x)
        assert len({x.data_ptr(), y.data_ptr(), z.data_ptr()}) == 3


def test_contiguous_inputs_and_results_are_not_copied(
    compiled: CompiledModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3, 8)
    compiled(x)
    seen: list[tuple[int, int]] = []
    run_ordered = compiled._session.run_ordered

    class Watched:
        def run_ordered(self, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
            results = run_ordered(arrays)
            assert results is not None
            seen.append((arrays[0].ctypes.data, results[0].ctypes.data))
            return results

    monkeypatch.setattr(compiled, "_session", Watched())
    y = compiled(x)["y"]
    assert seen == [(x.data_ptr(), y.data_ptr())]


def test_an_empty_batch_gives_an_empty_result(
    compiled: CompiledModule, quantised: QuantizedModule
) -> None:
    for module in (compiled, quantised):
        y = module(torch.empty(0, 8))["y"]
        assert y.shape == (0, 4)
        assert y.dtype == torch.float32
        with pytest.raises(InputError, match="size 7 on axis 1"):
            module(torch.empty(0, 7))


# ---- Dtypes ----


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, torch.float32),
        (TensorProto.DOUBLE, torch.float64),
        (TensorProto.FLOAT16, torch.float16),
        (TensorProto.BFLOAT16, torch.bfloat16),
        (TensorProto.INT64, torch.int64),
        (TensorProto.INT32, torch.int32),
        (TensorProto.UINT8, torch.uint8),
        (TensorProto.INT8, torch.int8),
        (TensorProto.BOOL, torch.bool),
    ],
)
def test_every_dtype_goes_through(tmp_path: Path, kind: int, dtype: torch.dtype) -> None:
    path = _file(
        tmp_path / "m.onnx",
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])],
        {"x": (kind, ["a", 3])},
        {"y": (kind, [3, "a"])},
    )
    module = load(path)
    x = torch.tensor([[0, 1, 3], [5, 0, 100]]).to(dtype)
    for _ in range(2):
        y = module(x)
        assert y.dtype == dtype
        assert torch.equal(y, x.t())
    assert torch.equal(module(x.t().contiguous().t()), x.t())


def test_a_number_without_axes(tmp_path: Path) -> None:
    kind = TensorProto.FLOAT
    node = helper.make_node("Neg", ["x"], ["y"])
    module = load(_file(tmp_path / "m.onnx", [node], {"x": (kind, [])}, {"y": (kind, [])}))
    for _ in range(2):
        assert torch.equal(module(torch.tensor(2.5)), torch.tensor(-2.5))


def test_floating_inputs_become_the_captured_dtype(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8).bfloat16()
    expected = compiled(x.float())["y"]
    for dtype in (torch.bfloat16, torch.float64):
        y = compiled(x.to(dtype))["y"]
        assert y.dtype == torch.float32
        assert torch.equal(y, expected)


def test_whole_numbers_become_wider_ones_only(several: CompiledModule) -> None:
    ids, mask = torch.randint(0, 50, (2, 6)), torch.ones(2, 6)
    expected = several(ids, mask).logits
    assert torch.equal(several(ids.int(), mask).logits, expected)
    with pytest.raises(InputError, match=r"argument 'ids' is torch\.float32"):
        several(ids.float(), mask)
    with pytest.raises(InputError, match=r"argument 'mask' is torch\.int64"):
        several(ids, mask.long())


def test_autocast_changes_nothing(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x)["y"]
        assert y.dtype == torch.float32
        assert torch.equal(y, expected)
        before = nn.Linear(8, 8)
        with torch.no_grad():
            hidden = before(x)
        assert hidden.dtype == torch.bfloat16
        assert torch.equal(compiled(hidden)["y"], compiled(hidden.float())["y"])


# ---- As any other module ----


def test_a_module_among_others(compiled: CompiledModule) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = compiled
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x)["y"])

    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    whole = Head().eval().requires_grad_(False)
    assert [name for name, _ in whole.named_parameters()] == ["head.weight", "head.bias"]
    assert [name for name, _ in whole.named_buffers()] == ["body.lowprec_model"]
    assert "body.lowprec_model" in whole.state_dict()
    torch.testing.assert_close(whole(x), whole.head(expected))
    whole.to(torch.bfloat16)
    assert whole.head.weight.dtype == torch.bfloat16
    assert torch.equal(whole.body(x)["y"], expected)
    with pytest.raises(UnsupportedError, match="for inference"):
        whole.train()
    assert compiled.training is False


@pytest.mark.parametrize(
    "move",
    [
        lambda q: q.half(),
        lambda q: q.double(),
        lambda q: q.float(),
        lambda q: q.bfloat16(),
        lambda q: q.to(torch.float16),
        lambda q: q.to("meta"),
        lambda q: q.to_empty(device="meta"),
        lambda q: q.cpu(),
        lambda q: q.eval(),
        lambda q: q.requires_grad_(False),
        lambda q: q.train(False),
    ],
)
def test_moving_it_leaves_the_codes_alone(quantised: QuantizedModule, move: object) -> None:
    x = torch.randn(3, 8)
    expected, state = quantised(x)["y"], quantised.lowprec_model
    assert move(quantised) is quantised  # type: ignore[operator]
    assert quantised.lowprec_model is state
    assert state.device.type == "cpu"
    assert torch.equal(quantised(x)["y"], expected)


def test_hooks_are_called(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    before = compiled.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    after = compiled.register_forward_hook(lambda module, args, result: result["y"] + 1)
    zero = compiled(x)
    before.remove()
    after.remove()
    assert torch.equal(zero, compiled(x * 0)["y"] + 1)
    assert torch.equal(compiled(x)["y"], expected)


def test_print_is_short_and_says_what_it_is(
    compiled: CompiledModule, quantised: QuantizedModule
) -> None:
    assert re.fullmatch(
        r"CompiledModule\(Net; 0\.0 MB; \(x: float32\[\w+, 8\]\) -> \(y: float32\[\w+, 4\]\)\)",
        str(compiled),
    )
    assert str(quantised).startswith("QuantizedModule(Net; int8, ")
    assert len(str(quantised)) < 200


def test_members_are_those_of_a_compiled_model(quantised: QuantizedModule) -> None:
    x = torch.randn(3, 8)
    y = quantised(x)["y"]
    (array,) = quantised.run({"x": x.numpy()})
    assert np.array_equal(array, y.numpy())
    target = np.empty_like(array)
    quantised.run({"x": x.numpy()}, out=[target])
    assert np.array_equal(target, array)
    (again,) = quantised.run(["y"], {"x": x.numpy()})
    assert np.array_equal(again, array)
    assert [info.name for info in quantised.inputs] == ["x"]
    assert [info.name for info in quantised.outputs] == ["y"]
    assert quantised.get_inputs()[0].type == "tensor(float)"
    assert quantised.get_outputs()[0].name == "y"
    assert quantised.explain().steps
    assert quantised.profile({"x": x.numpy()}, repeats=2)
    assert quantised.report.layers
    assert quantised.config.precision == "int8"
    for name in ("run", "inputs", "outputs", "explain", "profile", "get_inputs", "get_outputs"):
        assert getattr(CompiledModule, name).__doc__
