"""LOWPREC_ISA names the instruction set that kernels use; nothing chooses for it in silence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lowprec._ext import _core

ISAS = _core.cpu_info()["isas"]
CHOOSE = "from lowprec._ext import _core; print(_core.chosen_isa())"
RUN = "import lowprec, numpy as np; lowprec.numerics.to_bf16(np.zeros(3, np.float32))"


def python(code: str, isa: str | None) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if k != "LOWPREC_ISA"}
    if isa is not None:
        environment["LOWPREC_ISA"] = isa
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize("limit", [None, ""])
def test_the_last_set_that_the_machine_has_is_chosen(limit):
    assert python(CHOOSE, limit) == (0, _core.available_isas()[-1])


@pytest.mark.parametrize("isa", [isa for isa, missing in ISAS.items() if not missing])
def test_a_set_that_the_machine_has_is_obeyed(isa):
    assert python(CHOOSE, isa) == (0, isa)


@pytest.mark.parametrize("isa", [isa for isa, missing in ISAS.items() if missing])
def test_a_set_that_the_machine_lacks_is_an_error(isa):
    code, message = python(RUN, isa)
    assert code == 1
    assert message == (
        f"lowprec.errors.IsaError: LOWPREC_ISA={isa}: {ISAS[isa]}; unset it or name a smaller set"
    )


@pytest.mark.parametrize("isa", ["avx", "AVX2", "avx512vnni ", *_core.model_isas()])
def test_other_names_are_an_error(isa):
    code, message = python(RUN, isa)
    assert code == 1
    names = ", ".join(ISAS)
    assert message == f"lowprec.errors.IsaError: LOWPREC_ISA={isa} is not one of: {names}"


def test_models_are_never_chosen_and_not_listed():
    models = _core.model_isas()
    assert set(models).isdisjoint(ISAS)
    if "avx512vnni" in _core.available_isas():
        assert set(models) == {"avxvnni-evex", "amx-model"}
    for name in models:
        assert _core.Program(name).isa == name


def test_an_unknown_table_is_an_error():
    with pytest.raises(_core.IsaUnavailable, match="z80 is not one of: scalar"):
        _core.Program("z80")
