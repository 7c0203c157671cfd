"""Weights of ATSS, Dynamic ATSS, PAA, DW, FCOS and RetinaNet of other projects as one of our detectors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from boxmatch.checkpoints.dense_layout import architecture, is_benchmark, rename
from boxmatch.checkpoints.saved import save_detector
from boxmatch.delta_coder import DeltaCoder
from boxmatch.models import atss, dual_weight, dynamic_atss, fcos, paa, retinanet
from boxmatch.models.dense import DenseDetector
from boxmatch.models.weights import read_weights

Family = Literal["atss", "dynamic_atss", "paa", "dual_weight", "fcos", "retinanet"]

FAMILIES: Mapping[str, Callable[..., DenseDetector]] = {
    "atss": atss,
    "dynamic_atss": dynamic_atss,
    "paa": paa,
    "dual_weight": dual_weight,
    "fcos": fcos,
    "retinanet": retinanet,
}

_BENCHMARK: Mapping[str, Any] = {
    "norm": "frozen",
    "norm_eps": 0.0,
    "anchor_shift": 0.5,
    "input_norm": "caffe",
}

# MMDetection: torchvision's RGB input, batch norm in evaluation mode, plain boxes.
_PLAIN: Mapping[str, Any] = {
    "norm": "eval",
    "norm_eps": 1e-5,
    "stride_in_1x1": False,
    "anchor_shift": 0.0,
    "input_norm": "torchvision",
}

# Its anchors stand in the corners of the cells, and RetinaNet's deltas have no weights.
_MMDETECTION: Mapping[str, Mapping[str, Any]] = {
    "atss": {"anchor_center": 0.0},
    "dynamic_atss": {"anchor_center": 0.0},
    "paa": {"anchor_center": 0.0},
    "retinanet": {"coder": DeltaCoder((1.0, 1.0, 1.0, 1.0))},
}


def convert_dense(
    source: str | Path,
    target: str | Path | None = None,
    *,
    family: Family,
    class_names: Sequence[str] | None = None,
    drop: Sequence[str] = (),
) -> DenseDetector:
    """Read a checkpoint of maskrcnn-benchmark or MMDetection and, with a target, save it in our format.

    Backbone, width, deformable layers, refinement and number of classes follow from the tensors. No code of
    the file is run. Every tensor is used, checked and dropped as a constant, dropped by name, or an error.

    Args:
        source: `.pth` (bare tensors, or a dictionary with them under `model` or `state_dict`) or
            `.safetensors`.
        target: file or folder for `save_detector`; None saves nothing.
        family: which method it was trained with; it decides what the outputs mean. FCOS of MMDetection must
            have been trained with `norm_on_bbox` and `centerness_on_reg`.
        class_names: in label order; None gives class_0, class_1, …
        drop: names of tensors to leave out.

    Returns:
        The detector in evaluation mode, with the published settings of the family.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or could run code, a tensor is unknown, missing or of the wrong shape,
            or the names do not fit its number of classes.
    """
    if family not in FAMILIES:
        raise ValueError(f"expected family in {tuple(FAMILIES)}, got {family!r}")
    weights = read_weights(source)
    unknown = [name for name in drop if name not in weights]
    if unknown:
        raise ValueError(f"cannot drop {', '.join(unknown)}: {source} has no such tensor")
    weights = {name: tensor for name, tensor in weights.items() if name not in drop}
    detector = build_dense(weights, family, class_names)
    if target is not None:
        save_detector(detector, target)
    return detector


def build_dense(
    weights: Mapping[str, Tensor], family: Family, class_names: Sequence[str] | None = None
) -> DenseDetector:
    """The detector of a checkpoint's tensors; see `convert_dense`."""
    benchmark = is_benchmark(weights)
    ours = rename(weights)
    network = architecture(ours)
    network["refine"] = "zeros" if network.pop("refined") else None
    if benchmark:
        network |= _BENCHMARK
        network["stride_in_1x1"] = not network["backbone"].startswith("resnext")
    else:
        network |= {**_PLAIN, **_MMDETECTION.get(family, {})}
    if family in ("atss", "dynamic_atss", "paa"):
        # Only the originals count the right and lower edges of a box as pixels.
        network["inclusive_pixels"] = benchmark
    names = _class_names(ours, class_names, 9 if family == "retinanet" else 1)
    detector = FAMILIES[family](names, **network)
    expected = detector.state_dict()
    if "head.scales" in expected and "head.scales" not in ours:
        # RetinaNet scales nothing.
        ours["head.scales"] = torch.ones_like(expected["head.scales"])
    # Running values of the loss are no weights.
    ours |= {name: value for name, value in expected.items() if name.startswith(("loss.", "assigner."))}
    _check_fit(ours, expected)
    detector.load_state_dict(ours)
    return detector.eval()


def _class_names(
    weights: Mapping[str, Tensor], class_names: Sequence[str] | None, per_place: int
) -> tuple[str, ...]:
    if "head.class_logits.weight" not in weights:
        raise ValueError("expected a class prediction layer, got none; is this a whole detector?")
    channels = weights["head.class_logits.weight"].shape[0]
    classes, rest = divmod(channels, per_place)
    if rest:
        raise ValueError(f"{channels} class channels do not fit {per_place} anchors per place")
    if class_names is None:
        return tuple(f"class_{number}" for number in range(classes))
    if len(class_names) != classes:
        raise ValueError(f"the head has {classes} classes, got {len(class_names)} names")
    return tuple(class_names)


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless names and shapes are the same."""
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} tensors of the network ({', '.join(missing[:3])} …) and "
            f"holds {len(unknown)} that it has no place for ({', '.join(unknown[:3])} …)"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"expected {name} of shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            )
