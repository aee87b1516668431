"""Activations by name, as the operators that a product applies to its result.

What each computes is said in `_ext/kernels/kernels.h`; the bits are the same on every instruction
set.
"""

from __future__ import annotations

from lowprec.errors import InputError

# Name: operator code (UnaryCode in kernels.h), and the parameters that it has by default.
ACTIVATIONS: dict[str, tuple[int, tuple[float, ...]]] = {
    "relu": (1, ()),
    "clip": (2, (0.0, 6.0)),
    "leaky_relu": (8, (0.01,)),
    "hard_sigmoid": (9, (0.2, 0.5)),
    "hard_swish": (10, ()),
    "sigmoid": (11, ()),
    "silu": (12, ()),
    "tanh": (13, ()),
    "gelu": (21, ()),
    "gelu_tanh": (22, ()),
    "elu": (24, (1.0,)),
}
ADD_RESIDUAL = (64, 0.0, 0.0)

# A name, or a name and its parameters: ("clip", -1, 1).
Activation = str | tuple[str | float, ...]
Operator = tuple[int, float, float]


def operators(activation: Activation | None) -> tuple[Operator, ...]:
    """Return what kernels run for an activation: at most one (code, a, b).

    Raises:
        InputError: an unknown name, or parameters that the activation does not have.
    """
    if activation is None:
        return ()
    name, *given = (activation,) if isinstance(activation, str) else activation
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise InputError(f"activation {name!r} is not one of: {', '.join(ACTIVATIONS)}")
    code, usual = ACTIVATIONS[name]
    if given and len(given) != len(usual):
        raise InputError(f"activation {name!r} has {len(usual)} parameters, {len(given)} given")
    try:
        values = [float(value) for value in given or usual]
    except ValueError:
        raise InputError(f"activation {activation!r}: expected a name, then numbers") from None
    if any(value != value for value in values):
        raise InputError(f"activation {activation!r} has a parameter that is not a number")
    first, second, *_ = (*values, 0.0, 0.0)
    return ((code, first, second),)
