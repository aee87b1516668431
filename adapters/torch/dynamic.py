"""Which sizes may change, told to torch.export by named dimensions, and what it answers.

torch.export refuses a module that treats some sizes differently, and says what would satisfy it:
a constant, a bound, a multiple, two sizes that are equal. Equalities are followed. Of the others
only the module itself can tell what they are, so it is run just outside of what was suggested. If
it fails there, it takes no such size: the suggestion is followed and calls are checked against it.
If it works, it does something else there, which the trace would not do: refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch.export import Dim

from lowprec.adapters.torch.lines import decisions_of
from lowprec.adapters.torch.refusals import Refusal, because
from lowprec.adapters.torch.trees import Leaf
from lowprec.adapters.torch.watching import first_difference

BATCH = "batch"
ROUNDS = 8  # of suggestions that may follow from one another
GUESSES = 16  # runs of a module to find out where its batch is
LARGEST_TRIAL = 1 << 24  # elements of the inputs that a module is run with only to learn a size
LONGEST_TRIAL = 4096  # the same for one size: memory may grow with its square

FIX_SIZES = (
    "make it do the same for every size, or say which sizes to expect with "
    "example_inputs=lowprec.adapters.torch.example(..., dynamic_shapes=...): {} fixes them all"
)

Axes = dict[int, Any]  # axis -> Dim
Bounds = tuple[int, "int | None", int]  # least, greatest and step of the sizes that are accepted

ANY: Bounds = (0, None, 1)

_FIX = re.compile(r"^\s*(\w+) = (.+?)\s*$", re.MULTILINE)
_LIMITS = re.compile(r"Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+|oo|int_oo))?\)")
_MULTIPLE = re.compile(r"(?:(\d+)\*)?_\w+(?: ([+-]) (\d+))?")
_SIZE = re.compile(r"L\['\w+'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\]")
_CONDITION = re.compile(r"satisfy the generated guard (.+?)\.?$", re.MULTILINE)


@dataclass(frozen=True)
class Exported:
    """A module that was exported.

    Attributes:
        program: As torch.export returned it.
        leaves: What it was traced with.
        bounds: For each leaf, by axis that may change, the sizes that are accepted.
        sizes: For each leaf, by axis that may change, its size as an expression of torch's symbols.
    """

    program: torch.export.ExportedProgram
    leaves: list[torch.Tensor]
    bounds: list[dict[int, Bounds]]
    sizes: list[dict[int, Any]]

    @property
    def symbols(self) -> list[Any]:
        """What the sizes depend on, in order."""
        return list(dict.fromkeys(s for e in self._expressions() for s in e.free_symbols))

    def places(self, symbol: Any) -> list[tuple[int, int]]:
        """Return (leaf, axis) of the sizes that are `symbol` itself."""
        return [
            (index, axis)
            for index, axes in enumerate(self.sizes)
            for axis, expression in axes.items()
            if expression == symbol
        ]

    def size_of(self, symbol: Any) -> int:
        """Return the value that `symbol` had in the trace."""
        for index, axes in enumerate(self.sizes):
            for axis, expression in axes.items():
                if expression.free_symbols == {symbol}:
                    rest = int(expression.subs(symbol, 0))
                    step = int(expression.subs(symbol, 1)) - rest
                    return (self.leaves[index].shape[axis] - rest) // step
        return 1

    def resized(self, values: dict[Any, int]) -> list[torch.Tensor]:
        """Return the leaves cropped or tiled to other values of some symbols."""
        names = [{axis: str(e) for axis, e in axes.items()} for axes in self.sizes]
        wanted = {
            str(e): int(e.subs(values))
            for e in self._expressions()
            if e.free_symbols <= values.keys()
        }
        return resized(self.leaves, names, wanted)

    def _expressions(self) -> list[Any]:
        return [expression for axes in self.sizes for expression in axes.values()]


def varying_axes(calls: Sequence[Sequence[Leaf]], batch: Sequence[int | None]) -> list[Axes]:
    """Return for each leaf the axes that may change, with a dimension for each.

    Args:
        calls: Leaves of several calls, alike but for sizes.
        batch: For each leaf the axis of the batch, which may change too; None where there is none.
    """
    shared = Dim(BATCH)
    axes: list[Axes] = []
    for index, (name, first) in enumerate(calls[0]):
        found: Axes = {}
        for axis in range(first.ndim):
            if axis == batch[index]:
                found[axis] = shared
            elif len({leaves[index][1].shape[axis] for leaves in calls}) > 1:
                found[axis] = Dim(f"{re.sub(r'[^0-9a-zA-Z_]', '_', name)}_{axis}")
        axes.append(found)
    return axes


def find_batch(module: torch.nn.Module, calls: Sequence[Sequence[Leaf]]) -> list[int | None]:
    """Return for each leaf the axis that is the batch: where one more changes all, it still works.

    Axis 0 of all inputs, if the module takes it; else axis 1 of some, as for the states of an LSTM.
    """
    leaves = [tensor for _, tensor in calls[0]]
    nowhere: list[int | None] = [None] * len(leaves)
    if not leaves or not leaves[0].ndim:
        return nowhere
    choices = []
    for index, tensor in enumerate(leaves):
        fitting: list[int | None] = [
            axis
            for axis in range(min(tensor.ndim, 2))
            if all(c[index][1].shape[axis] == c[0][1].shape[0] for c in calls if c[0][1].ndim)
        ]
        choices.append([*fitting, None])
    choices[0] = [0]
    tried = 0
    for axes in product(*choices):
        if None in axes and any(
            tensor.ndim and tensor.shape[0] == leaves[0].shape[0]
            for tensor, axis in zip(leaves, axes, strict=True)
            if axis is None
        ):
            continue  # an input as long as the batch that is not of it: nothing to rely on
        if tried == GUESSES:
            break
        tried += 1
        names = [{} if axis is None else {axis: BATCH} for axis in axes]
        if _works(module, resized(leaves, names, {BATCH: leaves[0].shape[0] + 1})):
            return list(axes)
    return nowhere


def resized(
    leaves: Sequence[torch.Tensor], names: Sequence[dict[int, str]], sizes: dict[str, int]
) -> list[torch.Tensor]:
    """Return `leaves` cropped or tiled along the axes that `names` names, to `sizes`."""
    result = []
    for tensor, axes in zip(leaves, names, strict=True):
        for axis, name in axes.items():
            size = sizes.get(name)
            if size is not None and size != tensor.shape[axis]:
                index = torch.arange(size) % max(tensor.shape[axis], 1)
                tensor = tensor.index_select(axis, index)
        result.append(tensor)
    return result


def export_with(
    module: torch.nn.Module, leaves: Sequence[torch.Tensor], axes: Sequence[Axes]
) -> Exported:
    """Return `module` exported, with `axes` that may change.

    Raises:
        Refusal: it works differently for some sizes, or cannot be exported at all.
    """
    from torch._dynamo.exc import UserError, UserErrorType
    from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

    asked = [[*found] for found in axes]
    shapes: Any = (tuple(dict(found) or None for found in axes),)
    for _ in range(ROUNDS):
        try:
            program = _export(module, leaves, shapes)
        except UserError as error:
            if error.error_type != UserErrorType.CONSTRAINT_VIOLATION:
                raise because(error) from error
            text = str(error).partition("\n\nThe error above")[0]
            fixes = dict(_FIX.findall(text.partition("Suggested fixes:")[2]))
            if not fixes:
                raise _refused_condition(module, leaves, asked, text) from None
            for name, fix in fixes.items():
                _check_fix(module, leaves, asked, shapes, name, fix)
            shapes = refine_dynamic_shapes_from_suggested_fixes(text, shapes)
            continue
        exported = _with_bounds(program, list(leaves), asked)
        return _narrowed_at_one(module, exported)
    raise Refusal("the sizes that the module accepts could not be found out", None)


def _export(
    module: torch.nn.Module, leaves: Sequence[torch.Tensor], shapes: Any
) -> torch.export.ExportedProgram:
    """Return `module` exported: by running it with fake tensors, else from its Python bytecode.

    The second follows some Python that the first cannot, but fails more often.
    """
    from torch._dynamo.exc import UserError, UserErrorType

    try:
        return torch.export.export(module, tuple(leaves), dynamic_shapes=shapes, strict=False)
    except UserError as error:
        if error.error_type == UserErrorType.CONSTRAINT_VIOLATION:
            raise
        refusal = because(error)
    except Exception as error:  # torch raises anything here, the module's own errors too
        refusal = because(error)
    try:
        return torch.export.export(module, tuple(leaves), dynamic_shapes=shapes, strict=True)
    except UserError as error:
        if error.error_type == UserErrorType.CONSTRAINT_VIOLATION:
            raise
    except Exception:  # the first reason is the plainer one
        pass
    raise refusal


def _check_fix(
    module: torch.nn.Module,
    leaves: Sequence[torch.Tensor],
    asked: Sequence[Sequence[int]],
    shapes: Any,
    name: str,
    fix: str,
) -> None:
    """Refuse a suggestion that would cut off sizes for which the module works."""
    names = _names_in(shapes)
    places = [(i, axis) for i, found in enumerate(names) for axis in found if found[axis] == name]
    if not places:
        return  # a helper of another one
    index, axis = places[0]
    size, dim = leaves[index].shape[axis], shapes[0][index][axis]
    trials: list[int] = []
    if fix.isdigit():
        trials = [size + 1, size - 1, 2 * size]
        accepted = f"{name} = {fix}"
    elif limits := _LIMITS.fullmatch(fix):
        least, most = limits[1], limits[2]
        if most and most.isdigit() and int(most) < getattr(dim, "max", 1 << 62):
            trials.append(int(most) + 1)
        if least and int(least) > max(getattr(dim, "min", 0), 2):
            trials.append(int(least) - 1)
        accepted = " and ".join(
            [f"{name} >= {least}"] * bool(least) + [f"{name} <= {most}"] * bool(most)
        )
    elif multiple := _MULTIPLE.fullmatch(fix):
        trials = [size + 1] if multiple[1] else []
        accepted = f"{name} = {fix}"
    for trial in trials:
        if trial < 1 or trial > LONGEST_TRIAL:
            continue
        tensors = resized(_least_others(leaves, names, name), names, {name: trial})
        if sum(t.numel() for t in tensors) > LARGEST_TRIAL or not _works(module, tensors):
            continue
        changed = dict.fromkeys(places, trial)
        decisions = decisions_of(module, leaves, asked)
        line = next((d.line for d in decisions if not d.holds(changed)), None)
        raise Refusal(
            f"the module does something else for {name} = {trial} than for {name} = {size}: a "
            f"trace is right for {accepted} only",
            line,
            FIX_SIZES,
        )


def _refused_condition(
    module: torch.nn.Module,
    leaves: Sequence[torch.Tensor],
    asked: Sequence[Sequence[int]],
    text: str,
) -> Refusal:
    """Return the refusal of a condition that no range of sizes satisfies, as `size != 7`."""
    found = _CONDITION.search(text)
    condition = found[1] if found else ""
    trials = [
        {(index, axis): int(number)}
        for number in re.findall(r"(?<![\w\[])\d+(?![\w\]])", condition)
        for index, axes in enumerate(asked)
        for axis in axes
    ]
    decisions = decisions_of(module, leaves, asked)
    line = next((d.line for d in decisions for trial in trials if not d.holds(trial)), None)
    what = _SIZE.sub(r"size \2 of input \1", condition) or "a condition holds"
    return Refusal(
        f"the module decides by a size what to compute: a trace is right only where {what}",
        line,
        FIX_SIZES,
    )


def _least_others(
    leaves: Sequence[torch.Tensor], names: Sequence[dict[int, str]], name: str
) -> list[torch.Tensor]:
    """Return the leaves with a batch of 2: enough to learn about another size."""
    return list(leaves) if name == BATCH else resized(leaves, names, {BATCH: 2})


def _with_bounds(
    program: torch.export.ExportedProgram,
    leaves: list[torch.Tensor],
    asked: Sequence[Sequence[int]],
) -> Exported:
    """Return what the program itself says about the sizes that it is right for."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.name in inputs]
    sizes = [
        {
            axis: value.shape[axis].node.expr
            for axis in axes
            if not isinstance(value.shape[axis], int)
        }
        for value, axes in zip(values, asked, strict=True)
    ]
    bounds = [
        {axis: _bounds_of(e, program.range_constraints) for axis, e in axes.items()}
        for axes in sizes
    ]
    return Exported(program, leaves, bounds, sizes)


def _bounds_of(expression: Any, ranges: Any) -> Bounds:
    """Return the sizes that `expression`, a multiple of a symbol plus a number, may have."""
    symbols = [*expression.free_symbols]
    if len(symbols) != 1:
        return ANY
    symbol = symbols[0]
    rest = int(expression.subs(symbol, 0))
    step = int(expression.subs(symbol, 1)) - rest
    low, high = ranges[symbol].lower, ranges[symbol].upper
    least = int(low)
    if expression != symbol and least <= 2:
        least = 1 if rest <= 0 else 0  # torch.export takes no helper to be 1 or 0
    greatest = step * int(high) + rest if high.is_Integer and int(high) < 1 << 40 else None
    return step * least + rest, greatest, step


def _narrowed_at_one(module: torch.nn.Module, exported: Exported) -> Exported:
    """Compare with the module where sizes are 1, which torch.export never looks at."""
    program = exported.program.module(check_guards=False)
    for symbol in exported.symbols:
        places = exported.places(symbol)
        if not places:
            continue
        least, greatest, _ = exported.bounds[places[0][0]][places[0][1]]
        if least > 1 or greatest == 1:
            continue
        tensors = exported.resized({symbol: 1})
        try:
            expected = module(*(tensor.clone() for tensor in tensors))
        except Exception:  # the module's own: it takes no size of 1
            for index, axis in places:
                exported.bounds[index][axis] = (2, greatest, 1)
            continue
        if not _same(program, tensors, expected):
            raise Refusal(
                f"the module does something else for a size of 1 of axis {places[0][1]} of its "
                "input than for more, as squeeze() does",
                first_difference(partial(module, *tensors), partial(module, *exported.leaves)),
                "name the axis to squeeze, or make the module do the same for every size",
                size_one=True,
            )
    return exported


def _same(program: Any, tensors: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    try:
        actual = program(*(t.clone() for t in tensors))
    except Exception:  # of the program: it cannot do it at all
        return False
    return len(actual) == len(expected) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=1e-2, atol=1e-4, equal_nan=True)
        for a, b in zip(actual, expected, strict=True)
    )


def _names_in(shapes: Any) -> list[dict[int, str]]:
    return [
        {axis: dim.__name__ for axis, dim in (found or {}).items() if hasattr(dim, "__name__")}
        for found in shapes[0]
    ]


def _works(module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> bool:
    try:
        module(*(tensor.clone() for tensor in tensors))
    except Exception:  # whatever the module's own code raises
        return False
    return True
