"""Every layer of keras.layers is what TensorFlow computes, alone and between others, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import keras
import keras_layers as cases
import numpy as np
import pytest
from keras_layers import Case

import lowprec
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras
from lowprec.errors import LowprecError

BATCHES = (1, 4)
AT_ONCE = 16  # layers of one model


def groups() -> Iterator[list[Case]]:
    """Yield cases with the same inputs, some at a time: tracing a model is what takes time."""
    found = sorted(cases.LAYERS, key=lambda case: str(case.inputs))
    for _, same in groupby(found, key=lambda case: case.inputs):
        together = list(same)
        for start in range(0, len(together), AT_ONCE):
            yield together[start : start + AT_ONCE]


GROUPS = {f"{group[0].inputs[0].shape} {number}": group for number, group in enumerate(groups())}


def compared(model: keras.Model, together: Sequence[Case], tolerance: float = 1e-5) -> None:
    """Compare the hub of a model with TensorFlow, each output by its case's name."""
    source, called = source_of_keras(model)
    session = lowprec.compile(hub_of(source, "layers"))
    for value in session.get_inputs():
        assert not isinstance(value.shape[0], int)
    for batch in BATCHES:
        arrays = [given.array(batch, seed) for seed, given in enumerate(together[0].inputs)]
        expected = dict(zip(called.results, source.run(arrays), strict=True))
        found = session.run(list(expected), dict(zip(called.names, arrays, strict=True)))
        for (label, wanted), result in zip(expected.items(), found, strict=True):
            name = together[int(label.removeprefix("out"))].name
            assert result.shape == wanted.shape, (name, batch)
            assert result.dtype == wanted.dtype, (name, batch)
            size = max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0)))
            error = np.abs(result.astype(np.float64) - wanted).max(initial=0) / size
            assert error <= tolerance, (name, batch, error)


def test_no_layer_of_keras_is_forgotten() -> None:
    layers = {
        name
        for name, kind in inspect.getmembers(keras.layers, inspect.isclass)
        if issubclass(kind, keras.layers.Layer)
    }
    # Conv2D and Convolution2D are one class: either name will do.
    tried = {case.layer for case in (*cases.LAYERS, *cases.RECURRENT)}
    kinds = {getattr(keras.layers, name) for name in (*tried, *cases.REFUSED)}
    gaps = {name for name in layers if getattr(keras.layers, name) not in kinds}
    assert not gaps, f"neither compared nor refused: {sorted(gaps)}"
    assert not tried & {*cases.REFUSED}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("where", [cases.alone, cases.between], ids=["alone", "between"])
def test_layers_compute_what_tensorflow_computes(
    name: str, where: Callable[[Sequence[Case]], keras.Model]
) -> None:
    compared(where(GROUPS[name]), GROUPS[name])


def test_a_layer_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    group = [case for case in cases.LAYERS if case.name.startswith("ReLU max_value=6.0")]
    from lowprec.adapters.tensorflow.translator import TRANSLATIONS

    monkeypatch.setitem(TRANSLATIONS, "Relu6", TRANSLATIONS["Relu"])
    larger = [Case(case.name, case.make, (cases.Given((6,), scale=100.0),)) for case in group]
    model = cases.alone(larger)
    with pytest.raises(AssertionError, match="ReLU"):
        compared(model, larger)


@pytest.mark.parametrize("name", cases.REFUSALS)
def test_layers_that_are_refused_say_why(name: str) -> None:
    case, reason = cases.REFUSALS[name]
    source, _ = source_of_keras(cases.alone([case]))
    with pytest.raises(LowprecError, match=reason):
        hub_of(source, "layer")
