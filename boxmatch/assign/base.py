"""What every assigner shares: the call, its checks, float32, and ignore regions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..boxes import pair_iof
from ..errors import NotFiniteError
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .story import Story


class Assigner(nn.Module, ABC):
    """Decides which priors learn which box.

    A method is a subclass with one short `assign`. It works on the whole batch at once, keeps no state
    between calls, and treats every image as if it stood alone. The rest is the same for all methods and is
    done here:

    * everything runs in float32, outside autocast and, unless `keeps_graph`, without a graph: predictions are
      detached;
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

    keeps_graph: ClassVar[bool] = False
    """Whether gradients flow through the weights of the result, as those of a learnable prior do."""

    def __init__(self, *, ignore_threshold: float = 0.5) -> None:
        super().__init__()
        if not 0.5 <= ignore_threshold <= 1:
            raise ValueError(f"expected ignore_threshold in [0.5, 1], got {ignore_threshold}")
        self.ignore_threshold = ignore_threshold

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """Properties of `boxmatch.conformance` that the rule breaks by definition, each with the reason."""
        return {}

    @abstractmethod
    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        """The method itself: `targets` holds objects only, `predictions` is float32 and detached.

        It tells `story` its candidates and what each step drops.
        """

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        *,
        explain: bool = False,
    ) -> Assignment:
        """Assign the boxes of a batch to priors.

        Args:
            priors: the places of the network, one set for all images of the batch.
            targets: boxes in the pixels of the batch's images; images without boxes, empty batches are fine.
            predictions: needed where `uses_predictions`, unused elsewhere.
            explain: whether the result tells what became of each candidate; costs time and memory.

        Returns:
            Pairs that index the rows of `targets`, ordered by row.

        Raises:
            ValueError: predictions are missing, of another shape or not finite; devices differ.
        """
        self._check(priors, targets, predictions)
        story = Story(explain)
        graph = self.keeps_graph and torch.is_grad_enabled()
        with torch.autocast(targets.boxes.device.type, enabled=False), torch.set_grad_enabled(graph):
            used = None
            if self.uses_predictions and predictions is not None:
                used = _as_float32(predictions if graph else predictions.detach())
            if not bool(targets.ignore.any()):
                return _explained(self.assign(priors, targets, used, story), story)
            rows = (~targets.ignore).nonzero().squeeze(1)
            assignment = _explained(self.assign(priors, targets.select(rows), used, story), story)
            return self._with_ignore_regions(assignment, priors, targets, rows)

    def _with_ignore_regions(
        self, assignment: Assignment, priors: Priors, targets: Targets, rows: Tensor
    ) -> Assignment:
        """Index the full `targets` again and take out the background priors inside ignore regions."""
        learned = torch.zeros_like(assignment.ignored)
        learned[assignment.image, assignment.pairs.prior] = True
        candidates, explanation = assignment.candidates, assignment.explanation
        inside = ignore_mask(priors, targets.select(targets.ignore), self.ignore_threshold)
        return replace(
            assignment,
            pairs=_of_rows(assignment.pairs, rows),
            candidates=None if candidates is None else _of_rows(candidates, rows),
            explanation=None
            if explanation is None
            else replace(explanation, pairs=_of_rows(explanation.pairs, rows)),
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


def _explained(assignment: Assignment, story: Story) -> Assignment:
    return replace(assignment, explanation=story.finish(assignment)) if story.active else assignment


def _of_rows(pairs: Pairs, rows: Tensor) -> Pairs:
    """The same pairs, counted among all targets."""
    return Pairs(rows[pairs.gt], pairs.prior)


def _as_float32(predictions: Predictions) -> Predictions:
    return Predictions(
        logits=predictions.logits.float(),
        deltas=predictions.deltas.float(),
        boxes=None if predictions.boxes is None else predictions.boxes.float(),
        quality=None if predictions.quality is None else predictions.quality.float(),
    )


def _check_finite(name: str, predictions: Predictions) -> None:
    # A sum is finite only if every entry is, and it reads the tensors once; a finite tensor whose sum
    # overflows passes the closer look.
    parts = (predictions.logits, predictions.deltas, predictions.boxes, predictions.quality)
    sums = torch.stack([part.detach().sum().float() for part in parts if part is not None])
    if bool(sums.isfinite().all()):
        return
    for part in ("logits", "deltas", "boxes", "quality"):
        values = getattr(predictions, part)
        if values is not None and not bool(torch.isfinite(values).all()):
            image, prior = (~torch.isfinite(values)).nonzero()[0, :2].tolist()
            raise NotFiniteError(
                f"{name}: expected finite predictions, got {values[image, prior].tolist()} in {part} of "
                f"image {image}, prior {prior}; the network has diverged: lower the learning rate or clip "
                "the gradients"
            )
