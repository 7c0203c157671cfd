"""Dense detectors to be timed beside each other: ours, and torchvision's, on one backbone.

Letters: B pictures, P places, A anchors, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from boxmatch.bench.phase_clock import PhaseClock
from boxmatch.bench.standard_inputs import CLASSES
from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.models import dense_presets
from boxmatch.models.dense import DenseDetector
from boxmatch.models.dense_backbone import DenseBackboneName
from boxmatch.structures import Detections, Targets

OURS = ("atss", "dual_weight", "paa", "dynamic_atss", "fcos", "retinanet")
THEIRS = ("torchvision fcos", "torchvision retinanet")

_FROZEN_STAGES = 2  # stem and first stage: what all of them keep as it is by default
_PYRAMID_CHANNELS = 256


class TimedDetector(ABC):
    """A detector called as its users call it, whose inner steps report to a clock.

    Args:
        name: for people.
        module: the network.
        class_logits: its last convolution of the class branch.
        least_probability: class probability from which on an entry is a candidate, at a quality of 0.5.
    """

    def __init__(
        self, name: str, module: nn.Module, class_logits: nn.Conv2d, least_probability: float
    ) -> None:
        self.name, self.module = name, module
        self.class_logits, self.least_probability = class_logits, least_probability
        self.clock = PhaseClock()

    @abstractmethod
    def losses(self, images: Float[Tensor, "B 3 H W"], targets: Targets) -> dict[str, Tensor]:
        """Loss terms by name; "assign" and "loss" are phases of their own."""

    @abstractmethod
    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[int]:
        """How many objects are found on each picture; "postprocess" is a phase of its own."""


class OurDetector(TimedDetector):
    """A detector of this package.

    Post-processing that votes also runs without its vote, on the same predictions: "without_votes".
    """

    def __init__(self, name: str, detector: DenseDetector) -> None:
        process = detector.postprocess
        assert isinstance(process, DensePostProcess)
        product = process.fusion == "product" and process.threshold_on == "score"
        least = process.score_threshold * (2 if product else 1)
        super().__init__(name, detector, detector.head.class_logits, least)
        network: Any = detector
        self._process = process
        self._plain = None if process.vote_sigma is None else replace(process, vote_sigma=None)
        self._plain_first = False
        network.assign = self.clock.wrap("assign", network.assign)
        network.postprocess = self._postprocess
        network.loss.forward = self.clock.wrap("loss", network.loss.forward)
        self._detector = detector

    def losses(self, images: Float[Tensor, "B 3 H W"], targets: Targets) -> dict[str, Tensor]:
        """See `TimedDetector`."""
        return self._detector.losses(images, targets)

    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[int]:
        """See `TimedDetector`."""
        # In turns: what runs second finds the predictions in the cache.
        self._plain_first = not self._plain_first
        return [len(found) for found in self._detector.predict(images)]

    def _postprocess(self, *inputs: Any) -> list[Detections]:
        if self._plain is not None and self._plain_first:
            self.clock.wrap("without_votes", self._plain)(*inputs)
        found = self.clock.wrap("postprocess", self._process)(*inputs)
        if self._plain is not None and not self._plain_first:
            self.clock.wrap("without_votes", self._plain)(*inputs)
        return found


class TorchvisionDetector(TimedDetector):
    """FCOS or RetinaNet of torchvision."""

    def __init__(self, name: str, model: Any, least_probability: float) -> None:
        super().__init__(name, model, model.head.classification_head.cls_logits, least_probability)
        # Its compute_loss matches, and hands on to the head.
        model.compute_loss = self.clock.wrap("assign", model.compute_loss)
        model.head.compute_loss = self.clock.wrap("loss", model.head.compute_loss)
        model.postprocess_detections = self.clock.wrap("postprocess", model.postprocess_detections)

    def losses(self, images: Float[Tensor, "B 3 H W"], targets: Targets) -> dict[str, Tensor]:
        """See `TimedDetector`."""
        counts = targets.per_image().tolist()
        parts = zip(targets.boxes.split(counts), targets.labels.split(counts), strict=True)
        of_pictures = [{"boxes": boxes, "labels": labels} for boxes, labels in parts]
        terms: dict[str, Tensor] = self.module(list(images), of_pictures)
        return terms

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "B 3 H W"]) -> list[int]:
        """See `TimedDetector`."""
        return [len(found["scores"]) for found in self.module(list(images))]


def timed_detector(
    name: str, size: tuple[int, int], *, backbone: DenseBackboneName = "resnet50", seed: int = 0
) -> TimedDetector:
    """One of `OURS` or `THEIRS` with random weights: frozen norms, the stride of a bottleneck in its 3 × 3.

    Args:
        size: (height, width) of the pictures, for torchvision's models, which then leave them as they are.
        seed: of the weights; backbones of one seed are equal.
    """
    torch.manual_seed(seed)
    if name in THEIRS:
        return _torchvision(name, size, backbone)
    preset: Callable[..., DenseDetector] = getattr(dense_presets, name)
    detector = preset(
        [f"class {number}" for number in range(CLASSES)],
        backbone=backbone,
        stride_in_1x1=False,
        norm="frozen",
        norm_eps=1e-5,
        frozen_stages=_FROZEN_STAGES,
    )
    return OurDetector(name, detector)


def _torchvision(name: str, size: tuple[int, int], backbone: str) -> TorchvisionDetector:
    """As its own functions make them for ImageNet's weights, but frozen norms for RetinaNet as well."""
    is_fcos = name == "torchvision fcos"
    make = fcos_resnet50_fpn if is_fcos else retinanet_resnet50_fpn_v2
    model: Any = make(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=min(size), max_size=max(size)
    )
    model.backbone = _backbone(backbone, top_from_c5=not is_fcos)
    # FCOS compares the root of the product with the quality.
    least = 2 * model.score_thresh**2 if is_fcos else model.score_thresh
    return TorchvisionDetector(name, model, least)


def _backbone(name: str, *, top_from_c5: bool) -> BackboneWithFPN:
    deep = name not in ("resnet18", "resnet34")
    top = (2048 if deep else 512) if top_from_c5 else _PYRAMID_CHANNELS
    return resnet_fpn_backbone(
        backbone_name=name,
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=5 - _FROZEN_STAGES,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(top, _PYRAMID_CHANNELS),
    )
