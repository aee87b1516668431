"""A folder for a module: its ONNX file, the configuration that libraries read, a tokenizer's files.

    model.onnx      the QDQ model, which any ONNX runtime opens
    lowprec.json    what the module is besides: plain attributes, and the hash of model.onnx
    config.json     the configuration of transformers, where the original had one

Nothing in it is code or names a path; it may come from anyone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lowprec.adapters.torch.deferred import DeferredModule
from lowprec.adapters.torch.hugging_face import is_configuration, never
from lowprec.adapters.torch.module import CompiledModule, load
from lowprec.errors import ModelError, OutputError, UnsupportedError

FORMAT = 1
MODEL, OURS, THEIRS = "model.onnx", "lowprec.json", "config.json"

LONGEST = 1 << 24  # bytes of a JSON file
DEEPEST = 16
MOST_LABELS = 1 << 20


def save_pretrained(
    module: torch.nn.Module, folder: str | os.PathLike[str], tokenizer: Any = None
) -> None:
    """Write a module of lowprec into a folder, for `from_pretrained`.

    A folder that is not there yet appears as a whole or not at all. In one that is, files of the
    same names are replaced one by one, `lowprec.json` last; others stay.

    Args:
        module: What quantize() or compile() returned for a torch.nn.Module.
        folder: Made if need be.
        tokenizer: Or a processor, or whatever has `save_pretrained`: its files go there too.

    Raises:
        OutputError: the folder cannot be written.
        UnsupportedError: the module is none of lowprec, or was not captured yet.
    """
    from lowprec.atomic import output_errors, sync_folder, write_atomically

    if isinstance(module, DeferredModule):
        raise UnsupportedError(
            "the module is captured at its first call; call it once, or give example_inputs"
        )
    if not isinstance(module, CompiledModule):
        raise UnsupportedError(
            f"save_pretrained takes what quantize() or compile() returned, not a "
            f"{type(module).__name__}"
        )
    target = Path(os.path.realpath(folder))
    if target.exists() and not target.is_dir():
        raise OutputError(f"'{target}' is not a folder; give the name of a folder")
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            if tokenizer is not None:
                tokenizer.save_pretrained(str(made))
            _write(module, made)
            if not target.exists():
                os.chmod(made, 0o777 & ~_umask())
                os.rename(made, target)
                sync_folder(target.parent)
                return
            files = sorted(
                (path for path in made.rglob("*") if path.is_file()),
                key=lambda path: path.name == OURS,
            )
            for path in files:
                place = target / path.relative_to(made)
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, path.read_bytes())
        finally:
            shutil.rmtree(made, ignore_errors=True)


def from_pretrained(folder: str | os.PathLike[str]) -> CompiledModule:
    """Return the module that `save_pretrained` wrote: the same bits, signature and attributes.

    Args:
        folder: On this machine.

    Raises:
        ModelError: it is missing, damaged, or was not written by `save_pretrained`.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ModelError(
            f"'{place}' is not a folder of this machine; give one that save_pretrained wrote"
        )
    data = _object(place / OURS)
    if data.get("format") != FORMAT:
        raise ModelError(
            f"'{place / OURS}' is of format {str(data.get('format'))[:20]}, this version reads "
            f"{FORMAT}; save the module again"
        )
    path = place / MODEL
    if not path.is_file():
        raise ModelError(f"'{path}' is missing; save the module again")
    if _digest(path) != data.get("digest"):
        raise ModelError(
            f"'{path}' is not the file that '{OURS}' was written for; save the module again"
        )
    module = load(path)
    attributes = _decoded(data.get("attributes"), place, 0)
    if not isinstance(attributes, dict) or not all(isinstance(name, str) for name in attributes):
        raise _damaged(place, "its attributes are no object")
    module.carry(attributes)
    return module


def _write(module: CompiledModule, folder: Path) -> None:
    attributes = module.carried
    (folder / MODEL).write_bytes(module.lowprec_model.numpy().tobytes())
    config: Any = attributes.get("config")
    if is_configuration(config):
        (folder / THEIRS).write_text(config.to_json_string(use_diff=False), "utf-8")
    kept = {name: value for name, value in attributes.items() if _is_kept(value)}
    ours = {"format": FORMAT, "digest": _digest(folder / MODEL), "attributes": _encoded(kept)}
    (folder / OURS).write_text(json.dumps(ours, indent=1), "utf-8")


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# ---- Attributes as JSON --------------------------------------------------------------------------


def _is_kept(value: Any) -> bool:
    try:
        json.dumps(_encoded(value))
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _encoded(value: Any) -> Any:
    """Return `value` as JSON: what JSON has no word for in an object of one key."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.dtype, torch.device)):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if value is never:
        return {"never": True}
    if is_configuration(value):
        kind = "generation" if type(value).__name__ == "GenerationConfig" else "config"
        return {kind: json.loads(value.to_json_string(use_diff=False))}
    if isinstance(value, dict):
        return {"dict": [[_encoded(key), _encoded(part)] for key, part in value.items()]}
    if type(value) in (tuple, list, set, frozenset):
        return {type(value).__name__: [_encoded(part) for part in value]}
    raise TypeError(type(value).__name__)


def _decoded(value: Any, place: Path, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if not isinstance(value, dict) or len(value) != 1 or depth > DEEPEST:
        raise _damaged(place, "a value is of no known kind")
    ((kind, content),) = value.items()
    if kind == "dtype" and isinstance(getattr(torch, str(content), None), torch.dtype):
        return getattr(torch, content)
    if kind == "device" and content == "cpu":
        return torch.device("cpu")
    if kind == "never":
        return never
    if kind in ("config", "generation") and isinstance(content, dict):
        return _configuration(kind, content, place)
    if kind == "dict" and isinstance(content, list):
        found = {}
        for pair in content:
            if not isinstance(pair, list) or len(pair) != 2:
                raise _damaged(place, "a dict holds something else than pairs")
            key = _decoded(pair[0], place, depth + 1)
            if isinstance(key, (dict, list, set)):
                raise _damaged(place, "a key is no number or text")
            found[key] = _decoded(pair[1], place, depth + 1)
        return found
    makers: dict[str, Any] = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}
    if kind in makers and isinstance(content, list):
        parts = [_decoded(part, place, depth + 1) for part in content]
        try:
            return makers[kind](parts)
        except TypeError:
            raise _damaged(place, "a set holds lists") from None
    raise _damaged(place, f"a value is of the unknown kind '{kind[:40]}'")


def _configuration(kind: str, content: dict[str, Any], place: Path) -> Any:
    """Return a configuration of transformers; without transformers, its values."""
    labels = content.get("num_labels", content.get("_num_labels", 0))
    if labels is not None and (type(labels) is not int or not 0 <= labels <= MOST_LABELS):
        raise _damaged(place, "its configuration has no possible number of labels")
    try:
        import transformers
    except ImportError:
        return SimpleNamespace(**{str(name): value for name, value in content.items()})
    plain = {name: value for name, value in content.items() if name != "transformers_version"}
    try:
        if kind == "generation":
            return transformers.GenerationConfig.from_dict(plain)
        model_type = str(plain.pop("model_type", ""))
        known = transformers.CONFIG_MAPPING
        # Not get(): the mapping is lazy, and its get() sees nothing of that.
        made = known[model_type] if model_type in known else transformers.PretrainedConfig  # noqa: SIM401
        return made.from_dict(plain)
    except Exception as error:  # transformers' own checks raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise _damaged(place, f"transformers does not take its configuration: {reason}") from None


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    if not path.is_file():
        raise ModelError(
            f"'{path}' is missing; give a folder that save_pretrained of lowprec wrote (what "
            "transformers wrote is read by its own from_pretrained, and then quantised)"
        )
    with open(path, "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ModelError(f"'{path}' exceeds {LONGEST} bytes; it was not written by lowprec")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not JSON: {str(error)[:200]}; save it again") from None
    if not isinstance(data, dict):
        raise ModelError(f"'{path}' is not a JSON object; save the module again")
    return data


def _damaged(place: Path, what: str) -> ModelError:
    return ModelError(f"'{place / OURS}' is damaged: {what}; save the module again")
