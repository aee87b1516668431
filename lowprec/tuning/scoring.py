"""Quantise a configuration and score what it gives, here or in other processes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any

from lowprec.config import Config, Tuning
from lowprec.errors import ConfigError, LowprecError, QuantizationError, UnsupportedError
from lowprec.optional import require
from lowprec.tuning.measuring import fingerprint

if TYPE_CHECKING:
    from lowprec.models import QuantizedModel

Evaluate = Callable[[Any], float]
Functions = Mapping[str, Evaluate]
Rebuild = Callable[[Any], Any]


@dataclass
class Prepared:
    """A configuration made into a model, or the reason why it could not be."""

    config: Config
    model: QuantizedModel | None
    error: LowprecError | None
    fingerprint: str | None
    seconds: float


def named_functions(evaluate: Evaluate | Mapping[str, Evaluate]) -> dict[str, Evaluate]:
    """Return the metrics by name; a single function is called 'score'.

    Raises:
        ConfigError: there is none, or one is not a function.
    """
    functions = dict(evaluate) if isinstance(evaluate, Mapping) else {"score": evaluate}
    if not functions:
        raise ConfigError("evaluate is empty; give a function from a model to a score")
    for name, function in functions.items():
        if not callable(function):
            raise ConfigError(
                f"evaluate: '{name}' is a {type(function).__name__}; give a function from a model "
                "to a score"
            )
    return functions


def prepare(workbench: Any, config: Config) -> Prepared:
    """Return the model of `config`; a configuration that lowprec refuses is no end of the search.

    Raises:
        Whatever else goes wrong, unchanged.
    """
    start = perf_counter()
    model, error, stands_for = None, None, None
    try:
        model = workbench.quantize(config, measure=False)
        stands_for = fingerprint(model)
    except (UnsupportedError, QuantizationError) as refusal:
        error = refusal
    return Prepared(config, model, error, stands_for, perf_counter() - start)


def score(functions: Functions, model: object) -> dict[str, float]:
    """Return every metric's score of `model`. The functions' exceptions pass unchanged.

    Raises:
        LowprecError: a function returned something that is not a number.
    """
    scores = {}
    for name, function in functions.items():
        value = function(model)
        try:
            scores[name] = float(value)
        except (TypeError, ValueError):
            raise LowprecError(
                f"evaluate: '{name}' returned {type(value).__name__}; it must return one number"
            ) from None
    return scores


class Scorer:
    """Scores models one by one, or several at a time through joblib."""

    def __init__(self, tuning: Tuning, functions: Functions, rebuild: Rebuild | None) -> None:
        """Choose how trials run.

        Raises:
            ConfigError: joblib knows no such backend, or it is not ready.
            LowprecError: joblib or a backend's package is missing, or `evaluate` cannot be sent to
                other processes.
        """
        self._functions = functions
        self._rebuild = rebuild
        self._backend = tuning.backend
        self.jobs = 1
        self._shares_memory = True
        if tuning.n_jobs != 1 or tuning.backend is not None or _joblib_is_configured():
            self._choose(tuning)

    def score_original(self, original: object) -> dict[str, float]:
        """Return the scores of a model that is what the functions take already."""
        return score(self._functions, original)

    def scores(self, models: Sequence[QuantizedModel]) -> list[tuple[dict[str, float], float]]:
        """Return scores and seconds of each model, in order."""
        if self.jobs == 1 or (len(models) == 1 and self._shares_memory):
            return [_timed(self._functions, self._rebuilt(model)) for model in models]
        joblib = _joblib()
        with joblib.parallel_config(**self._settings()):
            parallel = joblib.Parallel()
            if self._shares_memory:
                tasks = [
                    joblib.delayed(_score_here)(self._functions, self._rebuild, model)
                    for model in models
                ]
            else:
                tasks = [
                    joblib.delayed(_score_elsewhere)(
                        self._payload, model.to_onnx().SerializeToString(), self.jobs
                    )
                    for model in models
                ]
            return list(parallel(tasks))

    def _rebuilt(self, model: QuantizedModel) -> object:
        return model if self._rebuild is None else self._rebuild(model)

    def _settings(self) -> dict[str, Any]:
        if self._backend is None:
            return {"n_jobs": self.jobs}
        return {"backend": self._backend, "n_jobs": self.jobs}

    def _choose(self, tuning: Tuning) -> None:
        joblib = _joblib()
        if tuning.backend == "ray":
            _register_ray()
        wanted = None if tuning.n_jobs == 1 and tuning.backend is None else tuning.n_jobs
        settings: dict[str, Any] = {} if wanted is None else {"n_jobs": wanted}
        if tuning.backend is not None:
            settings["backend"] = tuning.backend
        try:
            with joblib.parallel_config(**settings):
                backend, jobs = joblib.parallel.get_active_backend()
                self.jobs = max(1, backend.effective_n_jobs(jobs))
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"tuning.backend '{tuning.backend}': {error}; accepted are loky, threading, "
                "multiprocessing, and dask or ray where their client runs"
            ) from error
        self._shares_memory = bool(getattr(backend, "supports_sharedmem", False))
        if self.jobs > 1 and not self._shares_memory:
            self._payload = _pickled((dict(self._functions), self._rebuild))


def _timed(functions: Functions, model: object) -> tuple[dict[str, float], float]:
    start = perf_counter()
    return score(functions, model), perf_counter() - start


def _score_here(
    functions: Functions, rebuild: Rebuild | None, model: Any
) -> tuple[dict[str, float], float]:
    return _timed(functions, model if rebuild is None else rebuild(model))


def _score_elsewhere(payload: bytes, content: bytes, jobs: int) -> tuple[dict[str, float], float]:
    """Score a model that came as ONNX; runs in another process, perhaps on another machine."""
    import onnx

    from lowprec.graph import load
    from lowprec.models import QuantizedModel
    from lowprec.threads import set_num_threads

    if not os.environ.get("LOWPREC_NUM_THREADS"):
        # The jobs share this machine's processors; results do not depend on the number.
        set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    functions, rebuild = pickle.loads(payload)
    model: Any = QuantizedModel.from_hub(load(onnx.ModelProto.FromString(content)), "trial")
    return _timed(functions, model if rebuild is None else rebuild(model))


def _pickled(value: object) -> bytes:
    """Return `value` as other processes can read it: functions of a script by their content."""
    try:
        cloudpickle = import_module("cloudpickle")
    except ModuleNotFoundError:  # joblib before 1.6 brings its own
        cloudpickle = import_module("joblib.externals.cloudpickle")
    try:
        content: bytes = cloudpickle.dumps(value)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise LowprecError(
            f"evaluate cannot be sent to other processes ({reason}); let it open what cannot be "
            "pickled by itself, or set tuning.backend to threading"
        ) from error
    return content


def _joblib() -> Any:
    return require("joblib", "distributed", "tuning.n_jobs")


def _joblib_is_configured() -> bool:
    """Return whether the user is inside a joblib.parallel_config: joblib is imported then."""
    import sys

    joblib = sys.modules.get("joblib")
    if joblib is None or not hasattr(joblib, "parallel"):
        return False
    backend, jobs = joblib.parallel.get_active_backend()
    return bool(backend.effective_n_jobs(jobs) > 1)


def _register_ray() -> None:
    try:
        module = import_module("ray.util.joblib")
    except ImportError:
        raise LowprecError(
            "tuning.backend 'ray' needs the package ray; `pip install ray`, or use loky"
        ) from None
    module.register_ray()
