"""What every assigner shares: the call, its checks, float32, and ignore regions."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..boxes import pair_iof
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets


class Assigner(nn.Module, ABC):
    """Decides which priors learn which box.

    A method is a subclass with one short `assign`. It works on the whole batch at once, keeps no state
    between calls, and treats every image as if it stood alone. The rest is the same for all methods and is
    done here:

    * everything runs in float32, outside autocast and without a graph; predictions are detached;
    * ignore regions (`targets.ignore`: crowds, difficult objects) are withheld from `assign`. A prior that
      learned
      no box and lies in an ignore region takes no part in the loss. It lies in a region when at least
      `ignore_threshold` of its own area does (intersection over foreground), the rule by which COCO
      evaluation matches detections to crowds.

    Args:
        ignore_threshold: share of a prior's area, in [0.5, 1].

    Raises:
        ValueError: `ignore_threshold` is out of range.
    """

    uses_predictions: ClassVar[bool] = False
    """Whether `assign` reads predictions; if not, callers need not decode them."""

    def __init__(self, *, ignore_threshold: float = 0.5) -> None:
        super().__init__()
        if not 0.5 <= ignore_threshold <= 1:
            raise ValueError(f"expected ignore_threshold in [0.5, 1], got {ignore_threshold}")
        self.ignore_threshold = ignore_threshold

    @abstractmethod
    def assign(self, priors: Priors, targets: Targets, predictions: Predictions | None) -> Assignment:
        """The method itself: `targets` holds objects only, `predictions` is float32 and detached."""

    @torch.no_grad()
    def forward(self, priors: Priors, targets: Targets, predictions: Predictions | None = None) -> Assignment:
        """Assign the boxes of a batch to priors.

        Args:
            priors: the places of the network, one set for all images of the batch.
            targets: boxes in the pixels of the batch's images; images without boxes, empty batches are fine.
            predictions: needed where `uses_predictions`, unused elsewhere.

        Returns:
            Pairs that index the rows of `targets`, ordered by row.

        Raises:
            ValueError: predictions are missing, of another shape or not finite; devices differ.
        """
        self._check(priors, targets, predictions)
        with torch.autocast(targets.boxes.device.type, enabled=False):
            used = _as_float32(predictions) if self.uses_predictions and predictions is not None else None
            if not bool(targets.ignore.any()):
                return self.assign(priors, targets, used)
            rows = (~targets.ignore).nonzero().squeeze(1)
            assignment = self.assign(priors, targets.select(rows), used)
            return self._with_ignore_regions(assignment, priors, targets, rows)

    def _with_ignore_regions(
        self, assignment: Assignment, priors: Priors, targets: Targets, rows: Tensor
    ) -> Assignment:
        """Index the full `targets` again and take out the background priors inside ignore regions."""
        learned = torch.zeros_like(assignment.ignored)
        learned[assignment.image, assignment.pairs.prior] = True
        candidates = assignment.candidates
        inside = ignore_mask(priors, targets.select(targets.ignore), self.ignore_threshold)
        return replace(
            assignment,
            pairs=Pairs(rows[assignment.pairs.gt], assignment.pairs.prior),
            candidates=candidates if candidates is None else Pairs(rows[candidates.gt], candidates.prior),
            targets=targets,
            ignored=assignment.ignored | (inside & ~learned),
        )

    def _check(self, priors: Priors, targets: Targets, predictions: Predictions | None) -> None:
        name = type(self).__name__
        if priors.boxes.device != targets.boxes.device:
            raise ValueError(
                f"{name}: expected priors and targets on one device, got {priors.boxes.device} and "
                f"{targets.boxes.device}; move one with .to(device)"
            )
        if predictions is None:
            if self.uses_predictions:
                raise ValueError(f"{name} reads predictions, got None; pass predictions=detector(images)")
            return
        batch, count = predictions.deltas.shape[:2]
        if batch != targets.batch_size or count != len(priors):
            raise ValueError(
                f"{name}: expected predictions for {targets.batch_size} images and {len(priors)} priors, got "
                f"{batch} and {count}; build the priors from the feature sizes of the same batch"
            )
        if self.uses_predictions:
            _check_finite(name, predictions)


def ignore_mask(priors: Priors, regions: Targets, threshold: float) -> Bool[Tensor, "B P"]:
    """Priors of which at least `threshold` (0.5 or more) of the area lies in one region of their image."""
    # Half of the area inside puts the centre inside or on the border; a pixel of margin takes in the border.
    margin = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=regions.boxes.device)
    pairs = priors.inside(replace(regions, boxes=regions.boxes + margin))
    share = pair_iof(priors.boxes[pairs.prior], regions.boxes[pairs.gt])
    pairs = pairs.select(share >= threshold)
    mask = torch.zeros((regions.batch_size, len(priors)), dtype=torch.bool, device=regions.boxes.device)
    mask[regions.image[pairs.gt], pairs.prior] = True
    return mask


def _as_float32(predictions: Predictions) -> Predictions:
    detached = predictions.detach()
    return Predictions(
        logits=detached.logits.float(),
        deltas=detached.deltas.float(),
        boxes=None if detached.boxes is None else detached.boxes.float(),
        quality=None if detached.quality is None else detached.quality.float(),
    )


def _check_finite(name: str, predictions: Predictions) -> None:
    for part in ("logits", "deltas", "boxes", "quality"):
        values = getattr(predictions, part)
        if values is not None and not bool(torch.isfinite(values).all()):
            image, prior = (~torch.isfinite(values)).nonzero()[0, :2].tolist()
            raise ValueError(
                f"{name}: expected finite predictions, got {values[image, prior].tolist()} in {part} of "
                f"image {image}, prior {prior}; the network has diverged: lower the learning rate or clip "
                "the gradients"
            )
