"""lowprec::run in every kind of trace, and what is saved of them."""

from __future__ import annotations

import gc
import io
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch_modules import Picture, Several, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule, example, operator
from lowprec.adapters.torch.sizes import Spec, evaluated, signature_of, specs_of
from lowprec.errors import InputError, LowprecError, ModelError

# Written by hand: what torch.onnx declares for an input and outputs of sizes that follow from it.
HALVES = "0 float32[b;c;h;w] -> float32[b;2*c;(h - 1)//2 + 1;Max(w, 4)],int64[?;b + 1],bool[]"


@pytest.fixture(scope="module")
def picture() -> CompiledModule:
    return lowprec.compile(seeded(Picture), example_inputs=torch.randn(2, 3, 10, 12))


# ---- torch.export ----


@pytest.mark.parametrize("shapes", [({0: Dim("b")},), {"x": {0: Dim("b", max=64)}}])
def test_export_with_any_batch(quantised: QuantizedModule, shapes: object) -> None:
    x = torch.randn(3, 8)
    program = torch.export.export(quantised, (x,), dynamic_shapes=shapes)
    (node,) = [n for n in program.graph.nodes if n.target is torch.ops.lowprec.run.default]
    batch = node.meta["val"][0].shape[0]
    assert isinstance(batch, torch.SymInt)
    assert str(batch.node.expr) == str(node.args[0][0].meta["val"].shape[0].node.expr)
    for count in (1, 3, 7):
        x = torch.randn(count, 8)
        assert torch.equal(program.module()(x)["y"], quantised(x)["y"])


def test_export_with_keywords_and_structured_results() -> None:
    torch.export.register_dataclass(__import__("torch_modules").Answer)
    inputs = {"ids": torch.randint(0, 50, (2, 6)), "mask": torch.ones(2, 6)}
    module = lowprec.compile(seeded(Several), example_inputs=example(**inputs))
    program = torch.export.export(module, (), inputs, strict=False)
    assert torch.equal(program.module()(**inputs).logits, module(**inputs).logits)


def test_a_fresh_process_runs_an_exported_program(
    quantised: QuantizedModule, tmp_path: Path
) -> None:
    x = torch.randn(3, 8)
    program = torch.export.export(quantised, (x,), dynamic_shapes=({0: Dim("b")},))
    torch.export.save(program, tmp_path / "q.pt2")
    larger = torch.randn(5, 8)
    torch.save({"x": larger, "y": quantised(larger)["y"]}, tmp_path / "sample.pt")
    code = (
        "import torch, lowprec.adapters.torch\n"
        "program = torch.export.load('q.pt2')\n"
        "sample = torch.load('sample.pt')\n"
        "module = program.module()\n"
        "assert torch.equal(module(sample['x'])['y'], sample['y'])\n"
        "again = torch.export.load('q.pt2').run_decompositions({}).module()\n"
        "assert torch.equal(again(sample['x'])['y'], sample['y'])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_importing_the_adapter_imports_no_torch() -> None:
    code = (
        "import sys, lowprec.adapters.torch as adapter\n"
        "assert 'torch' not in sys.modules\n"
        "import lowprec.adapters.torch.operator, torch\n"
        "torch.ops.lowprec.run.default\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_program_compiles_its_model_once_and_lets_it_go(picture: CompiledModule) -> None:
    module = lowprec.compile(nn.Linear(3, 2).eval(), example_inputs=torch.randn(2, 3))
    x = torch.randn(4, 3)
    expected = module(x)
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (x,)), file)
    del module
    gc.collect()
    file.seek(0)
    known = set(operator._models)
    program = torch.export.load(file)
    runner = program.module()
    assert torch.equal(runner(x), expected)
    (digest,) = set(operator._models) - known
    made = weakref.ref(operator._alive(digest))
    assert torch.equal(runner(x), expected)
    assert operator._alive(digest) is made()
    del program, runner
    gc.collect()
    assert made() is None
    assert digest not in operator._models


def test_a_program_whose_bytes_were_changed_says_so(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    own = pickle.loads(pickle.dumps(compiled))
    runner = torch.export.export(own, (x,)).module()
    runner(x)
    with torch.no_grad():
        next(runner.buffers()).zero_()
    with pytest.raises(InputError, match="not those that the program was traced with"):
        runner(x)
    (y,) = operator._run([x], compiled.lowprec_model.clone(), compiled._signature_text)
    assert torch.equal(y, compiled(x)["y"])


# ---- torch.compile and the rest ----


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_compile_in_one_graph(compiled: CompiledModule, dynamic: bool | None) -> None:
    torch._dynamo.reset()
    compiled(torch.randn(1, 8))
    with torch.no_grad():
        made = torch.compile(compiled, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for count in (3, 4, 5):
            x = torch.randn(count, 8)
            assert torch.equal(made(x, mask=None)["y"], compiled(x)["y"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_of_a_module_around_it(compiled: CompiledModule) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = compiled

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x=x * 2)["y"].sum(-1)

    torch._dynamo.reset()
    x = torch.randn(3, 8)
    around = Around().eval()
    with torch.no_grad():
        made = torch.compile(around, fullgraph=True, backend="inductor")
        torch.testing.assert_close(made(x), around(x))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_jit_trace(quantised: QuantizedModule) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(quantised, (torch.randn(3, 8),), strict=False)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    x = torch.randn(5, 8)
    assert torch.equal(torch.jit.load(file)(x)["y"], quantised(x)["y"])


def test_make_fx_sees_one_call(compiled: CompiledModule) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lambda x: compiled(x)["y"] + 1)(torch.randn(3, 8)).graph
    assert any(node.target is torch.ops.lowprec.run.default for node in graph.nodes)


def test_fake_tensors_go_through(compiled: CompiledModule) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = compiled(mode.from_tensor(torch.randn(3, 8)))["y"]
    assert y.shape == (3, 4)
    assert isinstance(y, torch._subclasses.FakeTensor)


def test_vmap_runs_sample_by_sample(compiled: CompiledModule) -> None:
    x = torch.randn(5, 2, 8)
    y = torch.vmap(lambda one: compiled(one)["y"], in_dims=1)(x.transpose(0, 1))
    assert torch.equal(y, torch.stack([compiled(one)["y"] for one in x]))


def test_gradients_are_refused(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8, requires_grad=True)
    arguments = ([x], compiled.lowprec_model, compiled._signature_text)
    with pytest.raises(InputError, match="argument 'x' requires a gradient"):
        torch.ops.lowprec.run(*arguments)
    with torch.no_grad():
        (y,) = torch.ops.lowprec.run(*arguments)
    assert not y.requires_grad
    with pytest.raises(LowprecError, match="gradient"):
        torch.func.grad(lambda v: compiled(v)["y"].sum())(x.detach())


def test_opcheck(quantised: QuantizedModule, picture: CompiledModule) -> None:
    for module, x in ((quantised, torch.randn(3, 8)), (picture, torch.randn(2, 3, 10, 12))):
        arguments = ([x], module.lowprec_model, module._signature_text)
        torch.library.opcheck(torch.ops.lowprec.run.default, arguments)


# ---- Sizes ----


def test_sizes_that_follow_from_the_inputs() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    mode = FakeTensorMode(shape_env=ShapeEnv())
    x = mode.from_tensor(torch.randn(3, 5, 7, 9))
    with mode:
        model = torch.zeros(1, dtype=torch.uint8)
        halves, counts, flag = torch.ops.lowprec.run([x], model, HALVES)
    assert tuple(halves.shape) == (3, 10, 4, 9)
    assert counts.dtype == torch.int64
    assert isinstance(counts.shape[0], torch.SymInt)
    assert counts.shape[1] == 4
    assert flag.dtype == torch.bool
    assert flag.ndim == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a", 6),
        ("12", 12),
        ("2*a", 12),
        ("a*b + 1", 31),
        ("(a - 1)//2 + 1", 3),
        ("((a - 1)//2 + 1)*b", 15),
        ("a**2", 36),
        ("-b + a", 1),
        ("a/2", 3),
        ("Max(1, a, b)", 6),
        ("Min(a, b)", 5),
        ("floor(a/4)", 1),
        ("Mod(a, 4)", 2),
        ("a % 4", 2),
        ("(s0*s1)", 30),
        ("z", None),
        ("2*z", None),
        ("", None),
        ("a//0", None),
        ("__import__('os').getpid()", None),
        ("a.b", None),
        ("[a for a in a]", None),
        ("a**99999999", None),
        ("*".join(["99999999"] * 100), None),
        ("(" * 400 + "a" + ")" * 400, None),
        ("-" * 900 + "a", 6),
        ("a" * 5000, None),
    ],
)
def test_expressions_of_sizes(text: str, size: int | None) -> None:
    assert evaluated(text, {"a": 6, "b": 5, "(s0*s1)": 30}) == size


def test_a_signature_tells_what_was_written() -> None:
    class Info:
        def __init__(self, dtype: str, shape: tuple[int | str | None, ...] | None) -> None:
            import ml_dtypes
            import numpy as np

            self.dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
            self.shape = shape

    inputs = [Info("float32", ("b", 3, None, "Max(1, s0)")), Info("bfloat16", ())]
    outputs = [Info("int64", None), Info("bool", ("evil];[",))]
    text = signature_of(inputs, outputs)
    takes, makes = specs_of(text)
    assert takes == (
        Spec(inputs[0].dtype, ("b", "3", "?", "Max(1, s0)")),
        Spec(inputs[1].dtype, ()),
    )
    assert makes == (Spec(outputs[0].dtype, None), Spec(outputs[1].dtype, ("?",)))
    for damaged in ("", "float32[1]", "floaty[1] -> float32[1]"):
        with pytest.raises(ModelError):
            specs_of(damaged)
