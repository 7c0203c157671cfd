"""Faster R-CNN with any hard assigner in its region proposal network; PAA there is one word."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from boxmatch.assign import PAA, Assigner, MaxIoU
from boxmatch.delta_coder import DeltaCoder
from boxmatch.losses.region import RegionLoss
from boxmatch.models.arguments import network_arguments, shared_arguments
from boxmatch.models.dense import InputNorm, anchor_grid, caffe_input
from boxmatch.models.dense_backbone import DenseBackbone, DenseBackboneName, Norm
from boxmatch.models.dense_head import LevelMaps, prior_rows
from boxmatch.models.detector import Detector, evaluation, refuse_broken
from boxmatch.models.finite import first_not_finite
from boxmatch.models.region_classifier import RegionClassifier, Regions
from boxmatch.models.region_network import STRIDES, RegionHead, RegionPyramid
from boxmatch.postprocess import PostProcess, box_limits
from boxmatch.priors import Priors
from boxmatch.region_proposals import RegionProposals
from boxmatch.structures import Assignment, Detections, Predictions, Targets

RegionRule = Literal["max_iou", "paa"]


class FasterRCNN(Detector):
    """A region proposal network on P2 to P6, then classes and boxes of its proposals.

    Its `forward`, `priors` and `assign` are about the first stage, where priors learn boxes of one class:
    object. The two rules of it differ in the assigner and in a branch:

    * "max_iou": a prior learns its best box from an IoU of 0.7 on, and is background below 0.3;
    * "paa": a mixture of two Gaussians over cross entropy + L1 of the candidates (`PAA`), and a branch that
      predicts the IoU of each box: it weights the box loss and enters the score of a proposal.

    Args:
        class_names: one name per class, in label order.
        rpn: rule of the first stage.
        backbone: which ResNet or ResNeXt.
        pretrained: its ImageNet weights, see `DenseBackbone`.
        stride_in_1x1: see `DenseBackbone`.
        norm: see `DenseBackbone`.
        norm_eps: see `DenseBackbone`.
        frozen_stages: see `DenseBackbone`.
        channels: width of pyramid and region head.
        bias_free_fpn: leave out the biases of the pyramid, as the published PAA on an RPN did by an edit.
        classifier_width: width of the two linear layers of the second stage.
        anchor_size: side in strides of a square prior; 8 gives 32 to 512 pixels.
        anchor_ratios: height / width of each shape.
        pre_nms_topk: boxes of each level that enter the NMS of the first stage, in training and after it.
        post_nms_topk: proposals of each picture, likewise.
        proposal_nms_iou: see `RegionProposals`.
        samples: proposals of each picture that the second stage learns from.
        input_norm: "torchvision" (RGB, ImageNet mean and deviation) or "caffe" (BGR in 0 .. 255 less a mean).
        coder: of the first stage; None takes plain deltas.
        assigner: a hard assigner in the place of the rule's; it sees every box with label 0. The branch stays
            as the rule has it.
        loss: of the first stage; None takes `RegionLoss`.
        postprocess: thresholds of the second stage; None takes 0.05, NMS from 0.5 on, 100 detections.

    Raises:
        ValueError: an option is out of range.

    Source: Ren et al. 2015 (Faster R-CNN), Lin et al. 2017 (FPN), settings of Detectron2; Kim & Lee 2020
    (PAA), kkhoot/PAA_Faster-RCNN.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        rpn: RegionRule = "max_iou",
        backbone: DenseBackboneName = "resnet50",
        pretrained: bool | str = False,
        stride_in_1x1: bool = False,
        norm: Norm = "frozen",
        norm_eps: float = 1e-5,
        frozen_stages: int = 2,
        channels: int = 256,
        bias_free_fpn: bool = False,
        classifier_width: int = 1024,
        anchor_size: float = 8.0,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 2000),
        proposal_nms_iou: float = 0.7,
        samples: int = 512,
        input_norm: InputNorm = "torchvision",
        coder: DeltaCoder | None = None,
        assigner: Assigner | None = None,
        loss: RegionLoss | None = None,
        postprocess: PostProcess | None = None,
    ) -> None:
        if rpn not in get_args(RegionRule):
            raise ValueError(f"expected rpn in {get_args(RegionRule)}, got {rpn!r}")
        if input_norm not in get_args(InputNorm):
            raise ValueError(f"expected input_norm in {get_args(InputNorm)}, got {input_norm!r}")
        architecture = network_arguments(FasterRCNN, locals())
        coder = DeltaCoder((1.0, 1.0, 1.0, 1.0)) if coder is None else coder
        super().__init__(
            class_names,
            architecture=architecture,
            grid=anchor_grid(anchor_size, 1, anchor_ratios, 0.0, 0.0, strides=STRIDES),
            coder=coder,
            assigner=assigner or region_assigner(rpn, coder),
            loss=loss or RegionLoss(),
            postprocess=postprocess or PostProcess(score_threshold=0.05, nms_iou=0.5),
        )
        self.input_norm = input_norm
        self.training_proposals, self.proposals = (
            RegionProposals(before, after, proposal_nms_iou)
            for before, after in zip(pre_nms_topk, post_nms_topk, strict=True)
        )
        options = shared_arguments(DenseBackbone, architecture)
        self.backbone = DenseBackbone(backbone, pretrained=pretrained, **options)
        widths = (self.backbone.channels[0] // 2, *self.backbone.channels)
        self.fpn = RegionPyramid(widths, channels, bias=not bias_free_fpn)
        self.head = RegionHead(channels, len(anchor_ratios), iou=rpn == "paa")
        self.classifier = RegionClassifier(
            channels, self.num_classes, width=classifier_width, samples=samples
        )

    def normalise(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """uint8 or 0..1 RGB as the backbone's weights want it."""
        return super().normalise(images) if self.input_norm == "torchvision" else caffe_input(images)

    def network(self, normalised: Float[Tensor, "B 3 H W"]) -> list[LevelMaps]:
        """Objectness, deltas and IoU of P2 to P6."""
        return self.head.levels(self.features(normalised))

    def features(self, normalised: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B D _H _W"]]:
        """P2 to P6."""
        return self.fpn.levels(self.backbone.stages(normalised))

    def flatten(
        self, maps: Sequence[LevelMaps]
    ) -> tuple[Float[Tensor, "B P 1"], Float[Tensor, "B P 4"], Float[Tensor, "B P"] | None]:
        """Objectness, deltas and IoU logits in the order level → row → column → anchor."""
        return prior_rows(maps, classes=1)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, *, explain: bool = False
    ) -> Assignment:
        """Which prior of the first stage learns which box; labels do not count there."""
        objects = replace(targets, labels=torch.zeros_like(targets.labels))
        assignment = super().assign(priors, objects, predictions, explain=explain)
        return replace(assignment, targets=targets)

    def losses(self, images: Shaped[Tensor, "B 3 H W"], targets: Targets) -> dict[str, Tensor]:
        """Terms of `RegionLoss` and of `RegionClassifier`; their sum is what training minimises.

        Raises:
            ValueError: a picture tensor, box or label is outside what `check` allows.
        """
        self.check(images, targets)
        priors, (height, width) = self.priors(images), images.shape[2:]
        features = self.features(self.normalise(images))
        predictions = self.read(self.head.levels(features), images)
        assignment = self.assign(priors, targets, predictions)
        with torch.autocast(images.device.type, enabled=False):
            terms: dict[str, Tensor] = self.loss(priors, targets, predictions, assignment, self.coder)
            limits = box_limits((height, width), predictions.deltas)
            proposals = self.training_proposals(predictions, priors, self.coder, limits)
        return terms | self.classifier.losses(features, proposals, (height, width), targets)

    @torch.no_grad()
    def predict(
        self,
        images: Shaped[Tensor, "B 3 H W"],
        *,
        postprocess: PostProcess | None = None,
        sizes: Int64[Tensor, "B 2"] | None = None,
    ) -> list[Detections]:
        """See `Detector.predict`; proposals are clipped to `sizes` as well."""
        self.check(images)
        seen = self._see(images, sizes)
        refuse_broken(self._first_broken(seen, images))
        return self.classifier.detections(
            seen.regions, seen.proposals, seen.limits, postprocess or self.postprocess
        )

    @torch.no_grad()
    def broken_output(self, images: Shaped[Tensor, "B 3 H W"]) -> tuple[str, int] | None:
        """See `Detector.broken_output`; both stages are looked at."""
        return self._first_broken(self._see(images, None), images)

    def _see(self, images: Shaped[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"] | None) -> "_Seen":
        """Both stages in evaluation mode."""
        height, width = images.shape[2:]
        with evaluation(self):
            features = self.features(self.normalise(images))
            predictions = self.read(self.head.levels(features), images)
            limits = box_limits((height, width) if sizes is None else sizes, predictions.deltas)
            with torch.autocast(images.device.type, enabled=False):
                proposals = self.proposals(predictions, self.priors(images), self.coder, limits)
            return _Seen(
                predictions, limits, proposals, self.classifier(features, proposals, (height, width))
            )

    def _first_broken(self, seen: "_Seen", images: Tensor) -> tuple[str, int] | None:
        """Tensor, and image, of the first number of either stage that is not finite."""
        broken = first_not_finite(seen.predictions, self.priors(images).levels)
        if broken is not None:
            return broken
        ends = torch.tensor([len(boxes) for boxes in seen.proposals]).cumsum(0)
        for name, values in (("class logit", seen.regions.logits), ("box number", seen.regions.deltas)):
            rows = (~torch.isfinite(values)).flatten(1).any(1).nonzero().squeeze(1)
            if len(rows):
                return f"{name} of a proposal", int(torch.searchsorted(ends, rows[0].cpu(), right=True))
        return None


class _Seen(NamedTuple):
    """What the two stages say about a batch."""

    predictions: Predictions
    limits: Float[Tensor, "B 4"]
    proposals: list[Float[Tensor, "_K 4"]]
    regions: Regions


def region_assigner(rpn: RegionRule, coder: DeltaCoder) -> Assigner:
    """The assigner of a rule, as published.

    Args:
        rpn: the rule.
        coder: of the region proposal network.
    """
    if rpn == "paa":
        return PAA(class_cost="bce", box_cost="l1", coder=coder)
    return MaxIoU(0.7, 0.3, low_quality="keep_argmax")
