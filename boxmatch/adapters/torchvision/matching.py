"""From torchvision's targets to an assigner, and from its result to torchvision's indices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from ...assign import Assigner
from ...priors import Priors
from ...structures import Assignment, Predictions, Targets

Soft = Literal["refuse", "as_hard"]

BETWEEN_THRESHOLDS = -2
"""What torchvision calls a prior that takes no part: the same number as in `Assignment.gt_index`."""


@dataclass(frozen=True)
class Matching:
    """An assigner in the place of torchvision's matcher.

    Args:
        assigner: the method.
        loss: what its result is for, for messages.
        soft: what to do with weights and class targets between 0 and 1.
    """

    assigner: Assigner
    loss: str
    soft: Soft

    def __post_init__(self) -> None:
        if self.soft not in get_args(Soft):
            raise ValueError(f"expected soft in {get_args(Soft)}, got {self.soft!r}")
        if self.assigner.keeps_graph:
            raise ValueError(
                f"{type(self.assigner).__name__} learns while it assigns, expected a method that does not: "
                f"{self.loss} knows nothing of its weights"
            )

    def __call__(
        self, priors: Priors, targets: Targets, predictions: Predictions | None = None
    ) -> Int64[Tensor, "B P"]:
        """Row in `targets` of each prior, -1 for background, -2 for those that take no part.

        Raises:
            ValueError: the result is soft, and nobody said that it may be taken as hard.
        """
        assignment = self.assigner(priors, targets, predictions)
        if self.soft == "refuse":
            self._check_hard(assignment)
        return assignment.gt_index()

    def _check_hard(self, assignment: Assignment) -> None:
        soft = (assignment.weight != 1) | (assignment.score != 1) | (assignment.neg_weight != 0)
        if bool(soft.any()):
            pair = int(soft.nonzero()[0])
            raise ValueError(
                f"expected a hard assignment, which is all that {self.loss} can express, got weight "
                f"{float(assignment.weight[pair]):.3g}, score {float(assignment.score[pair]):.3g} and "
                f"neg_weight {float(assignment.neg_weight[pair]):.3g} from {type(self.assigner).__name__}; "
                'give soft="as_hard" to use its pairs alone, or write the loss as in docs/own_head.md'
            )


def flat_targets(targets: Sequence[dict[str, Any]]) -> Targets:
    """torchvision's targets, whose boxes with `iscrowd` are ignore regions; checked by the guard before."""
    boxes = [target["boxes"].detach().float() for target in targets]
    device = boxes[0].device
    counts = torch.tensor([len(rows) for rows in boxes], device=device)
    together = torch.cat(boxes)
    return Targets(
        boxes=together,
        labels=torch.cat([target["labels"] for target in targets]).long(),
        image=torch.arange(len(boxes), device=device).repeat_interleave(counts, output_size=len(together)),
        ignore=torch.cat([_crowd(target, len(rows)) for target, rows in zip(targets, boxes)]).to(device),
        batch_size=len(boxes),
    )


def split_by_image(index: Int64[Tensor, "B P"], counts: Sequence[int]) -> list[Int64[Tensor, "P"]]:
    """Rows of the whole batch as rows of each image.

    Args:
        index: from `Matching`.
        counts: boxes of each image.
    """
    rows, first = [], 0
    for of_image, count in zip(index, counts, strict=True):
        rows.append(torch.where(of_image >= 0, of_image - first, of_image))
        first += count
    return rows


def _crowd(target: dict[str, Any], count: int) -> Tensor:
    crowd = target.get("iscrowd")
    return torch.zeros(count, dtype=torch.bool) if crowd is None else torch.as_tensor(crowd).bool()
