"""Faster R-CNN: an assigner in the region proposal network, and another in the RoI heads."""

from typing import Any

import torch
from torch import Tensor

from ...priors import Priors
from .anchors import AnchorRecorder
from .matching import BETWEEN_THRESHOLDS, Matching, flat_targets, split_by_image

BACKGROUND, LEFT_OUT = 0, -1
"""Labels by which torchvision's sampler tells negatives, and what it must not draw; positives are above 0."""


class AnchorMatching:
    """Stands in for `assign_targets_to_anchors` of a `RegionProposalNetwork`.

    Args:
        matching: what finds the indices.
        recorder: a hook of the network's anchor generator.
    """

    def __init__(self, matching: Matching, recorder: AnchorRecorder) -> None:
        self.matching, self.recorder = matching, recorder

    def __call__(
        self, anchors: list[Tensor], targets: list[dict[str, Any]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For each image: 1, 0 (background) or -1 (left out) per anchor, and the box that it learns."""
        index = self.matching(self.recorder.priors, flat_targets(targets))
        labels, matched_boxes = [], []
        for matched, target, of_image in zip(
            split_by_image(index, [len(target["boxes"]) for target in targets]), targets, anchors
        ):
            label = (matched >= 0).to(torch.float32)
            labels.append(label.masked_fill(matched == BETWEEN_THRESHOLDS, LEFT_OUT))
            boxes = target["boxes"]
            matched_boxes.append(
                boxes[matched.clamp(min=0)]
                if len(boxes)
                else torch.zeros(of_image.shape, dtype=torch.float32, device=of_image.device)
            )
        return labels, matched_boxes


class ProposalMatching:
    """Stands in for `assign_targets_to_proposals` of `RoIHeads`.

    Args:
        matching: what finds the indices.
    """

    def __init__(self, matching: Matching) -> None:
        self.matching = matching
        self._targets: list[dict[str, Any]] = []

    def remember(self, heads: Any, args: tuple[Any, ...]) -> None:
        """A forward pre-hook of the heads: keeps their targets, which say which boxes are crowds."""
        self._targets = args[3] if heads.training and len(args) > 3 and args[3] is not None else []

    def __call__(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For each image: row of the box of each proposal (0 for none), and its class, 0 or -1 (left out)."""
        rows, labels = [], []
        # Each image has proposals of its own, so there is no one set of priors for the batch.
        for of_image, boxes, classes, target in zip(proposals, gt_boxes, gt_labels, self._targets):
            flat = flat_targets([{**target, "boxes": boxes, "labels": classes}])
            index = self.matching(Priors.from_boxes(of_image.detach().float()), flat)[0]
            row = index.clamp(min=0)
            label = classes.long()[row] if len(classes) else torch.zeros_like(row)
            label = label.masked_fill(index == -1, BACKGROUND)
            labels.append(label.masked_fill(index == BETWEEN_THRESHOLDS, LEFT_OUT))
            rows.append(row)
        return rows, labels
