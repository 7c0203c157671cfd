"""A detector in one safetensors file, with a JSON beside it for people; reading it runs no code."""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import boxmatch
from boxmatch import (
    assign,
    coders,
    delta_coder,
    dense_postprocess,
    distance_coder,
    losses,
    models,
    postprocess,
)
from boxmatch.assign import Assigner, measures
from boxmatch.coders import BoxCoder
from boxmatch.models import Detector
from boxmatch.postprocess import PostProcess

_FORMAT = "boxmatch detector 1"
_FILE = "detector.safetensors"

_Rooms = tuple[ModuleType, ...]

# The parts of a detector: where the names of their classes are looked up, and what they must be. A file can
# name nothing else.
_ROOMS: Mapping[str, tuple[_Rooms, type]] = {
    "assigner": ((assign, measures, delta_coder), Assigner),
    "coder": ((coders, delta_coder, distance_coder), BoxCoder),
    "loss": ((losses,), nn.Module),
    "postprocess": ((postprocess, dense_postprocess), PostProcess),
}


def save_detector(detector: Detector, path: str | Path) -> Path:
    """Write weights and description of a detector, whole or not at all.

    The weight file is all that `load_detector` needs; a JSON of the same name tells a person what is in it.

    Args:
        detector: any detector of the package.
        path: a file ending in `.safetensors`, or a folder, which will hold `detector.safetensors`.

    Returns:
        The weight file.

    Raises:
        ValueError: a part of the package keeps an argument that JSON cannot hold.
    """
    file = _weight_file(Path(path))
    description = describe(detector)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    text = json.dumps(description, sort_keys=True)
    content = save(weights, metadata={"boxmatch": text, "sha256": _digest(text, weights)})
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, content)
    readable = {**description, "file": {"name": file.name, "sha256": hashlib.sha256(content).hexdigest()}}
    _write(file.with_suffix(".json"), (json.dumps(readable, indent=2) + "\n").encode())
    return file


def load_detector(
    path: str | Path,
    *,
    assigner: Assigner | None = None,
    loss: nn.Module | None = None,
    postprocess: PostProcess | None = None,
) -> Detector:
    """Build a detector from a file of `save_detector`, on the CPU and in evaluation mode.

    Args:
        path: the weight file or its folder.
        assigner: replaces the saved one; needed where that was a class of your own.
        loss: likewise.
        postprocess: likewise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, was not written by `save_detector`, or names a class that this
            version of the package does not have.
    """
    file = _weight_file(Path(path))
    description, weights = _read(file)
    given = {"assigner": assigner, "loss": loss, "postprocess": postprocess}
    try:
        parts = {kind: given.get(kind) or build_part(kind, description[kind]) for kind in _ROOMS}
        network = description["detector"]
        detector: Detector = _find("detector", network["class"], (models,), Detector)(
            description["class_names"], **_arguments(network), **parts
        )
        detector.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{file}: the description does not fit boxmatch {boxmatch.__version__} ({error}); it was written "
            f"by version {description.get('version')}"
        ) from error
    return detector.eval()


def describe(detector: Detector) -> dict[str, Any]:
    """Class names, network and parts of a detector as plain values, enough to build it again.

    Raises:
        ValueError: a part of the package keeps an argument that JSON cannot hold.
    """
    return {
        "format": _FORMAT,
        "version": boxmatch.__version__,
        "class_names": list(detector.class_names),
        "detector": {"class": type(detector).__name__, "arguments": detector.architecture},
        **{kind: describe_part(kind, getattr(detector, kind)) for kind in _ROOMS},
    }


def describe_part(kind: str, part: object) -> dict[str, Any]:
    """Class and arguments of a part as plain values, for `build_part`.

    Args:
        kind: "assigner", "coder", "loss" or "postprocess".
        part: the object.

    Raises:
        ValueError: a part of the package keeps an argument that JSON cannot hold.
    """
    return _describe(part, _ROOMS[kind][0])


def _describe(part: object, rooms: _Rooms) -> dict[str, Any]:
    kind = type(part)
    if not _is_ours(part, rooms):
        # Someone's own class: its name helps the reader of the file, but it is never imported from there.
        return {"class": f"{kind.__module__}.{kind.__qualname__}", "arguments": None}
    arguments = {name: getattr(part, name) for name in inspect.signature(kind).parameters}
    # An assigner may hold another one, or a similarity with numbers of its own.
    arguments = {
        name: _describe(value, rooms) if _is_ours(value, rooms) else value
        for name, value in arguments.items()
    }
    try:
        json.dumps(arguments)
    except TypeError as error:
        raise ValueError(f"expected plain arguments of {kind.__name__}, got {arguments} ({error})") from error
    return {"class": kind.__name__, "arguments": arguments}


def _is_ours(part: object, rooms: _Rooms) -> bool:
    return any(getattr(room, type(part).__name__, None) is type(part) for room in rooms)


def build_part(kind: str, description: Mapping[str, Any], base: type | None = None) -> Any:
    """A part of a detector from what `describe` says about it.

    Args:
        kind: "assigner", "coder", "loss" or "postprocess".
        description: class and arguments.
        base: what the class must be; None takes what the kind asks for.

    Raises:
        ValueError: there is no such class.
    """
    rooms, required = _ROOMS[kind]
    arguments = {
        name: build_part(kind, value, object) if _is_description(value) else value
        for name, value in _arguments(description).items()
    }
    return _find(kind, description["class"], rooms, base or required)(**arguments)


def _is_description(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"class", "arguments"}


def _arguments(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _tuples(value) for name, value in (description["arguments"] or {}).items()}


def _tuples(value: Any) -> Any:
    """JSON knows one kind of sequence; our constructors take tuples wherever they take lists."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _find(kind: str, name: str, rooms: _Rooms, base: type) -> Any:
    """The class of that name in one of the rooms.

    Raises:
        ValueError: there is no such class.
    """
    for room in rooms:
        found = getattr(room, str(name), None)
        if inspect.isclass(found) and issubclass(found, base) and found.__module__.startswith("boxmatch."):
            return found
    raise ValueError(
        f"the file names the {kind} {name!r}, which boxmatch {boxmatch.__version__} does not have; a "
        f"part of your own is passed in: load_detector(path, {kind}=...)"
    )


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights, checked against the digest in the file."""
    if not file.is_file():
        raise FileNotFoundError(f"no detector at {file}; give a file of save_detector or its folder")
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in list(content.keys())}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy or save it again") from error
    if "boxmatch" not in metadata:
        raise ValueError(
            f"{file} holds no boxmatch detector; weights of other projects go through `boxmatch convert`"
        )
    if metadata.get("sha256") != _digest(metadata["boxmatch"], weights):
        raise ValueError(f"{file} is damaged: its content does not match its checksum; copy or save it again")
    description: dict[str, Any] = json.loads(metadata["boxmatch"])
    if description.get("format") != _FORMAT:
        raise ValueError(
            f"{file} has the format {description.get('format')!r}, this version reads {_FORMAT!r}; update "
            "boxmatch"
        )
    return description, weights


def _digest(description: str, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and every tensor with its name, type and shape."""
    digest = hashlib.sha256(description.encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weight_file(path: Path) -> Path:
    return path if path.suffix == ".safetensors" else path / _FILE


def _write(file: Path, content: bytes) -> None:
    """Replace a file in one step, so that a crash leaves the old one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
