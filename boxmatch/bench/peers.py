"""Published code that is installed with us: torchvision's matching, called as its models call it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet

from boxmatch.bench.standard_inputs import Inputs


@dataclass(frozen=True)
class Peer:
    """Published code beside an assigner.

    Args:
        name: for people.
        prepare: given a batch, what is timed: a call that gives for each picture the box of each prior,
            negative for none.
    """

    name: str
    prepare: Callable[[Inputs], Callable[[], list[Tensor]]]


def _matched(targets: Any, outputs: Any, anchors: Any, matched: list[Tensor]) -> list[Tensor]:
    """Stands in for the losses of a head: hands on the matching that they would be given."""
    return matched


def _of_each_picture(inputs: Inputs) -> list[dict[str, Tensor]]:
    targets = inputs.targets
    counts = targets.per_image().tolist()
    parts = zip(targets.boxes.split(counts), targets.labels.split(counts), strict=True)
    return [{"boxes": boxes, "labels": labels} for boxes, labels in parts]


def _retinanet(inputs: Inputs) -> Callable[[], list[Tensor]]:
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    model: Any = SimpleNamespace(proposal_matcher=matcher, head=SimpleNamespace(compute_loss=_matched))
    targets, anchors = _of_each_picture(inputs), [inputs.priors.boxes] * inputs.targets.batch_size
    return lambda: RetinaNet.compute_loss(model, targets, {}, anchors)


def _fcos(inputs: Inputs) -> Callable[[], list[Tensor]]:
    # Its anchors are as large as a stride, and tell it which sizes a level is for.
    half = inputs.priors.stride[:, None] / 2
    squares = torch.cat((inputs.priors.centers - half, inputs.priors.centers + half), 1)
    model: Any = SimpleNamespace(center_sampling_radius=1.5, head=SimpleNamespace(compute_loss=_matched))
    targets, anchors = _of_each_picture(inputs), [squares] * inputs.targets.batch_size
    counts = [len(level) for level in inputs.priors.levels]
    return lambda: FCOS.compute_loss(model, targets, {}, anchors, counts)


torchvision_retinanet = Peer("torchvision RetinaNet", _retinanet)
torchvision_fcos = Peer("torchvision FCOS", _fcos)
