"""Low precision (bf16, int8) for neural networks on CPUs.

    quantize(model, calibration_data)   a real model in, a measured int8 model out
    load(path)                          a saved one back, with the same bits
    compile(model)                      run any model on the engine, its precision unchanged

Importing lowprec is cheap: everything is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowprec import compat, data, errors, metrics, numerics
    from lowprec.api import compile, load, quantize
    from lowprec.config import Config
    from lowprec.errors import LowprecError
    from lowprec.models import CompiledModel, QuantizedModel
    from lowprec.threads import get_num_threads, set_num_threads

    __version__: str

__all__ = [
    "CompiledModel",
    "Config",
    "LowprecError",
    "QuantizedModel",
    "__version__",
    "compat",
    "compile",
    "cpu_info",
    "data",
    "errors",
    "get_include",
    "get_num_threads",
    "load",
    "metrics",
    "numerics",
    "quantize",
    "set_num_threads",
]

_HOMES = {
    "CompiledModel": "lowprec.models",
    "Config": "lowprec.config",
    "LowprecError": "lowprec.errors",
    "QuantizedModel": "lowprec.models",
    "compile": "lowprec.api",
    "get_num_threads": "lowprec.threads",
    "load": "lowprec.api",
    "quantize": "lowprec.api",
    "set_num_threads": "lowprec.threads",
}
_MODULES = ("compat", "data", "errors", "metrics", "numerics")


def cpu_info() -> dict[str, Any]:
    """Return what the machine can do and what lowprec uses of it.

    Returns:
        vendor, brand: as the processor names itself.
        features: the instruction set extensions that matter here.
        isas: instruction set, least first -> why it cannot run: the first feature that the
            processor lacks or that the operating system does not grant; '' when it can.
        chosen: the instruction set in use, or None where LOWPREC_ISA names what cannot be used.
        problem: what is wrong with LOWPREC_ISA, or ''.
        limit: the value of LOWPREC_ISA, or None.

    Example:
        >>> info = lowprec.cpu_info()
        >>> info["isas"]["scalar"], info["isas"][info["chosen"]]
        ('', '')
    """
    from lowprec._ext import _core

    information: dict[str, Any] = _core.cpu_info()
    return information


def get_include() -> str:
    """Return the folder of lowprec.h and of the .pxd files, for modules that embed the maths core.

    It goes into an extension's include_dirs and, for Cython, into cythonize(include_path=...). See
    docs/embedding.md.

    Example:
        >>> from pathlib import Path
        >>> (Path(lowprec.get_include()) / "lowprec.h").exists()
        True
    """
    from importlib.util import find_spec
    from os import path

    spec = find_spec("lowprec._ext")
    assert spec is not None
    return path.join(next(iter(spec.submodule_search_locations or ())), "include")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("lowprec")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        return import_module(f"lowprec.{name}")
    else:
        raise AttributeError(f"module 'lowprec' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
