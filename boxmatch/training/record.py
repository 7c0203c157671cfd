"""What two halves of an interrupted run must have in common, and what is said about the rest."""

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from boxmatch.data.annotations import Annotations
from boxmatch.errors import CheckpointError
from boxmatch.training.run_log import say

# Differences in these make the continued training another training altogether.
_MUST_AGREE = {
    "class_names": "the classes",
    "train": "the training pictures or boxes",
    "val": "the validation pictures or boxes",
    "detector": "the network",
}
# These change where or what is written, not what is learnt.
_HARMLESS = (
    "data.workers",
    "data.cache_mb",
    "trainer.progress",
    "trainer.tensorboard",
    "trainer.log_every_n_steps",
    "trainer.checkpoint_every_n_steps",
)
# A data set may lie elsewhere; the fingerprints say whether it is the same.
_PLACES = ("root", "train", "val", "test")


def fingerprint(annotations: Annotations) -> str:
    """Digest over names, classes and boxes: the same wherever the folder lies."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("names", "name_offsets", "offsets", "boxes", "labels", "ignore"):
        digest.update(np.ascontiguousarray(getattr(annotations, name)).view(np.uint8).data)
    digest.update("\n".join(annotations.class_names).encode())
    return f"{len(annotations)} pictures, {len(annotations.boxes)} boxes, {digest.hexdigest()}"


def run_record(detector: Any, data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a run depends on, as plain values.

    Args:
        detector: described by its parts where it is one of ours.
        data: with `annotations(split)`; its constructor's arguments are read from attributes of their names.
        settings: of the training.
    """
    arguments = inspect.signature(type(data).__init__).parameters
    options = {
        name: plain(getattr(data, name)) for name in arguments if name not in _PLACES and hasattr(data, name)
    }
    return {
        **plain(settings),
        "detector": _describe(detector),
        "data": options,
        "train": fingerprint(data.annotations("train")),
        "val": fingerprint(data.annotations("val")),
    }


def _describe(detector: Any) -> dict[str, Any]:
    if hasattr(detector, "architecture"):
        from boxmatch.checkpoints.saved import describe

        return plain(describe(detector))
    return {"class": type(detector).__name__, "weights": sum(p.numel() for p in detector.parameters())}


def plain(value: Any) -> Any:
    """Dataclasses, mappings and sequences as dicts, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """Dotted name, old and new value of every leaf that differs; what one side lacks is None there."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        name, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{name}.")
        elif before != after:
            found.append((name, before, after))
    return found


def check_record(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> None:
    """Refuse to continue what is another training; say what else has changed.

    Raises:
        CheckpointError: there is no record, or classes, data or network differ.
    """
    if old is None:
        raise CheckpointError(
            "the checkpoint was not written by boxmatch train; start anew and load its weights instead"
        )
    changes = differences(old, new)
    for part, words in _MUST_AGREE.items():
        found = [change for change in changes if change[0].split(".")[0] == part]
        if found:
            name, before, after = found[0]
            raise CheckpointError(
                f"{words} differ from the saved run's ({name}: {before} → {after}); a resumed "
                "run must have the same. Restore them, or start a new run with another --output"
            )
    for name, before, after in changes:
        if name not in _HARMLESS:
            say(f"changed since the run was saved: {name}: {before} → {after}")
