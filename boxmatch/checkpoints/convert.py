"""Weights of zh320/simple-yolo-pytorch as one of our detectors."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from boxmatch.checkpoints.saved import save_detector
from boxmatch.coders import GridMethod
from boxmatch.models.presets import simple_yolo
from boxmatch.models.weights import read_weights
from boxmatch.models.yolo import COCO_ANCHORS, YOLO, Backbone

# Blocks per stage and whether they are bottlenecks → network and channels of its last stage at full width.
_RESNETS: Mapping[tuple[tuple[int, ...], bool], tuple[Backbone, int]] = {
    ((2, 2, 2, 2), False): ("resnet18", 512),
    ((3, 4, 6, 3), False): ("resnet34", 512),
    ((3, 4, 6, 3), True): ("resnet50", 2048),
    ((3, 4, 23, 3), True): ("resnet101", 2048),
}


def convert(
    source: str | Path,
    target: str | Path | None = None,
    *,
    method: GridMethod,
    class_names: Sequence[str] | None = None,
    anchors: Sequence[Sequence[tuple[float, float]]] | None = None,
    drop: Sequence[str] = (),
) -> YOLO:
    """Read a checkpoint of zh320/simple-yolo-pytorch and, with a target, save it in our format.

    Backbone, width and number of classes follow from the shapes; what the weights do not tell must be given.
    No code of the file is run. Every tensor is used, or dropped by name, or an error.

    Args:
        source: `.pth` (its `best.pth`, `last.pth`, or the bare tensors) or `.safetensors`.
        target: file or folder for `save_detector`; None saves nothing.
        method: the label assignment it was trained with, which decides what its box numbers mean.
        class_names: in label order; None gives class_0, class_1, …
        anchors: (width, height) in pixels per stride it was trained with; None takes those of COCO.
        drop: names of tensors to leave out.

    Returns:
        The detector in evaluation mode, with the published settings of the method.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or could run code, a tensor is unknown, missing or of the wrong shape,
            or the names do not fit its number of classes.
    """
    weights = read_weights(source)
    unknown = [name for name in drop if name not in weights]
    if unknown:
        raise ValueError(f"cannot drop {_nearest(unknown, list(weights))}: {source} has no such tensor")
    weights = {name: tensor for name, tensor in weights.items() if name not in drop}
    backbone, channel_sparsity = _backbone(weights, source)
    per_cell = len((COCO_ANCHORS if anchors is None else anchors)[0])
    names = _class_names(weights, per_cell, class_names)
    detector = simple_yolo(
        names, method, backbone=backbone, channel_sparsity=channel_sparsity, anchors=anchors
    )
    _check_fit(weights, detector.state_dict(), source)
    detector.load_state_dict(weights)
    detector.eval()
    if target is not None:
        save_detector(detector, target)
    return detector


def _backbone(weights: Mapping[str, Tensor], source: str | Path) -> tuple[Backbone, float]:
    """Name and channel_sparsity from the names and shapes of the tensors.

    Raises:
        ValueError: the blocks are those of no known backbone.
    """
    last = weights.get("spp.conv1.0.weight")
    if last is None or last.ndim != 4:
        raise ValueError(
            f"{source} is no simple YOLO: expected a convolution spp.conv1.0.weight, "
            f"got {_nearest(list(weights), [])}"
        )
    if any(name.startswith("backbone.stage0.") for name in weights):
        return "darknet", last.shape[1] / 1024
    blocks = tuple(
        sum(name.startswith(f"backbone.layer{stage}.") and name.endswith(".conv1.weight") for name in weights)
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "backbone.layer1.0.conv3.weight" in weights
    if (blocks, bottleneck) not in _RESNETS:
        raise ValueError(
            f"{source}: expected the blocks of darknet, resnet18, 34, 50 or 101, got stages of {blocks} "
            f"blocks {'with' if bottleneck else 'without'} bottleneck"
        )
    backbone, full_channels = _RESNETS[blocks, bottleneck]
    return backbone, last.shape[1] / full_channels


def _class_names(
    weights: Mapping[str, Tensor], anchors: int, class_names: Sequence[str] | None
) -> tuple[str, ...]:
    """The given names, or as many numbered ones as the head has classes.

    Raises:
        ValueError: the channels of the head are no multiple of the anchors, or the names are too few or many.
    """
    channels = weights["det_head.heads.0.weight"].shape[0] if "det_head.heads.0.weight" in weights else 0
    classes, rest = divmod(channels, anchors)
    classes -= 5  # objectness and four box numbers
    if rest or classes < 1:
        raise ValueError(
            f"a head of {channels} channels does not fit {anchors} anchors per cell; give `anchors`"
        )
    if class_names is None:
        return tuple(f"class_{index}" for index in range(classes))
    if len(class_names) != classes:
        raise ValueError(
            f"the head has {classes} classes at {anchors} anchors per cell, got {len(class_names)} names"
        )
    return tuple(class_names)


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise ValueError unless names and shapes are the same."""
    unknown = [name for name in weights if name not in expected]
    missing = [name for name in expected if name not in weights]
    if unknown:
        raise ValueError(
            f"{source} holds {len(unknown)} tensors the network has no place for: "
            f"{_nearest(unknown, list(expected))}; leave them out with `drop` if they are not needed"
        )
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} tensors: {_nearest(missing, list(weights))}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{source}: expected {name} of shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            )


def _nearest(names: Sequence[str], known: Sequence[str]) -> str:
    """The first few names, each with the most similar known one."""
    shown = []
    for name in names[:5]:
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        shown.append(f"{name} (nearest: {similar[0]})" if similar else name)
    return ", ".join(shown) + (", …" if len(names) > 5 else "")
