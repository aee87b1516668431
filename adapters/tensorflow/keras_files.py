"""Keras models from files: .keras, and the .h5 files of Keras 2 and 3. Nothing in them is run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py  # type: ignore[import-untyped]
import keras

from lowprec.adapters.tensorflow.legacy_layers import accepting_layers
from lowprec.adapters.tensorflow.words import in_one_line
from lowprec.errors import LowprecError, ModelError, UnsupportedError

CONFIG_LIMIT = 2**26  # bytes
UNPACKED_LIMIT = 2**28  # bytes that a short file may unpack to
UNPACKED_RATIO = 100


def load_keras_zip(path: str | os.PathLike[str]) -> keras.Model:
    """Return the model in a .keras file.

    Raises:
        ModelError: the file is damaged or Keras does not load it.
        UnsupportedError: it holds Python code (a Lambda layer).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(sum(info.file_size for info in archive.infolist()), Path(path))
            config = _json(_member(archive, "config.json", path), path)
            metadata = _json(_member(archive, "metadata.json", path, b"{}"), path)
            for info in archive.infolist():
                if info.filename.endswith(".h5"):
                    with archive.open(info) as member:
                        _check_hdf5(member, path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"model file '{path}' is not a complete .keras file: {in_one_line(error)}; save the "
            "model again"
        ) from None
    _refuse_code(config, path)
    is_old = str(metadata.get("keras_version", "3")).startswith("2")
    try:
        return _loaded(path, accepting_layers(is_old=True) if is_old else None)
    except LowprecError:
        raise
    except Exception as error:
        raise _not_loaded(path, error) from error


def load_hdf5(path: str | os.PathLike[str]) -> keras.Model:
    """Return the model in an .h5 file, which Keras 2 or 3 wrote.

    Raises:
        ModelError: the file is damaged, holds weights only, or Keras does not load it.
        UnsupportedError: it holds Python code (a Lambda layer).
    """
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            version = _text(file.attrs.get("keras_version", "2"))
            if text is None:
                raise ModelError(
                    f"model file '{path}' holds weights but no model; build the model in Python, "
                    "call model.load_weights(path), and give the model"
                )
            config = _json(_text(text).encode(), path)
            _check_links(file, path)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model file '{path}' is not a complete HDF5 file: {in_one_line(error)}; save the "
            "model again"
        ) from None
    _refuse_code(config, path)
    try:
        return _loaded(path, accepting_layers(is_old=not version.startswith("3")))
    except LowprecError:
        raise
    except Exception as error:
        raise _not_loaded(path, error) from error


def _loaded(path: str | os.PathLike[str], layers: dict[str, Any] | None) -> keras.Model:
    return keras.models.load_model(path, custom_objects=layers, compile=False, safe_mode=True)


def _not_loaded(path: str | os.PathLike[str], error: Exception) -> ModelError:
    return ModelError(
        f"Keras {keras.__version__} does not load '{path}': {in_one_line(error)}; load it yourself "
        "with keras.models.load_model(path, custom_objects=...) and give the model, or export a "
        "SavedModel with the Keras that wrote it"
    )


# ---- What must not be in a file ------------------------------------------------------------------


def _refuse_code(config: Any, path: str | os.PathLike[str]) -> None:
    for part in _dicts(config):
        name = part.get("class_name")
        if name in ("Lambda", "__lambda__"):
            inner = part.get("config")
            layer = inner.get("name", "") if isinstance(inner, dict) else ""
            raise UnsupportedError(
                f"model file '{path}' holds Python code (Lambda layer '{layer}'), which lowprec "
                "does not run; if you trust the file, load it with keras.models.load_model(path, "
                "safe_mode=False) and give the model"
            )
        if name in ("TFOpLambda", "SlicingOpLambda"):
            raise UnsupportedError(
                f"model file '{path}' holds TensorFlow functions between its layers ({name}), "
                "which Keras 3 cannot load; export it as a SavedModel with the Keras 2 that wrote "
                "it, and give its folder"
            )


def _dicts(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _check_hdf5(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    with h5py.File(file, "r") as opened:
        _check_links(opened, path)


def _check_links(file: Any, path: str | os.PathLike[str]) -> None:
    """Refuse what reads other files, and arrays that are larger than the file could hold."""
    total = 0
    waiting = [file]
    seen = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ModelError(
                    f"model file '{path}' refers to another place ('{name}'), which is not read; "
                    "save the model again"
                )
            item = group[name]
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    waiting.append(item)
                continue
            if item.external or item.is_virtual:
                raise ModelError(
                    f"model file '{path}' keeps the array '{name}' in another file, which is not "
                    "read; save the model again"
                )
            total += int(item.nbytes)
            _check_size(total, Path(path))


def _check_size(unpacked: int, path: Path) -> None:
    if unpacked > max(UNPACKED_LIMIT, UNPACKED_RATIO * path.stat().st_size):
        raise ModelError(
            f"model file '{path}' of {path.stat().st_size} bytes declares {unpacked} bytes of "
            "content; it is damaged, or made to fill memory"
        )


def _member(
    archive: zipfile.ZipFile, name: str, path: str | os.PathLike[str], missing: bytes | None = None
) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        if missing is not None:
            return missing
        raise ModelError(
            f"model file '{path}' has no {name}; a .keras file is expected: save the model again"
        ) from None
    if info.file_size > CONFIG_LIMIT:
        raise ModelError(f"{name} in model file '{path}' is longer than {CONFIG_LIMIT} bytes")
    return archive.read(info)


def _json(text: bytes, path: str | os.PathLike[str]) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"the description of the model in '{path}' is damaged: {in_one_line(error)}; save the "
            "model again"
        ) from None
    if not isinstance(found, dict):
        raise ModelError(f"the description of the model in '{path}' is damaged; save it again")
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
