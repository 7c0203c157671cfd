"""The pairs of a soft assignment as rows of flattened predictions, looked up some at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..boxes import take_boxes
from ..structures import Assignment, Predictions, Targets

_PAIRS_AT_ONCE = 2**18
"""Pairs worked on at once, some 40 MB."""


GRAPH_BUDGET = 2**20
"""Pairs whose graph is kept, some 500 MB for AutoAssign; beyond, a backward pass computes pieces again."""

Function = TypeVar("Function", bound=Callable[..., Any])


def without_graph_of_many(function: Function, pairs: int) -> Function:
    """The function, or one that keeps nothing for the backward pass but computes again, if pairs are many.

    Args:
        function: of positional arguments, deterministic.
        pairs: how many there are in all the pieces that the function is called for.
    """
    if pairs <= GRAPH_BUDGET or not torch.is_grad_enabled():
        return function
    again: Any = partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
    return again


@dataclass(frozen=True)
class SoftPairs:
    """An assignment whose pairs carry a positive and a negative weight, beside its ground truths.

    Indices are computed for a slice of the pairs when they are needed: lists over all pairs of a crowded
    batch would take more memory than everything else.

    Args:
        classes: number of class logits.
        inside: whether the negative weight multiplies the score or the loss, see `background`.
    """

    assignment: Assignment
    targets: Targets
    classes: int
    inside: bool

    def __post_init__(self) -> None:
        """Every index below depends on it.

        Raises:
            ValueError: a label is no class of the predictions.
        """
        labels = self.targets.labels
        if len(labels) and int(labels.max()) >= self.classes:
            raise ValueError(
                f"expected labels below {self.classes}, the number of classes of the predictions, got "
                f"{int(labels.max())}; give the detector as many classes as the data has"
            )

    @property
    def ignored(self) -> Tensor:
        """(B, P) priors that take no part."""
        return self.assignment.ignored

    def of_images(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Entries of the pairs of some images, and 1 - negative weight of each."""
        rows = slice(self._ends[first], self._ends[last])
        return self.entries(rows), 1 - self.assignment.neg_weight[rows]

    def __len__(self) -> int:
        return len(self.assignment.pairs)

    def pieces(self) -> list[slice]:
        """Runs of pairs to be worked on at once."""
        starts = range(0, len(self), _PAIRS_AT_ONCE)
        return [slice(start, min(start + _PAIRS_AT_ONCE, len(self))) for start in starts]

    @cached_property
    def _ends(self) -> list[int]:
        """0, and up to which pair each image reaches: pairs are ordered by ground truth."""
        per_box = torch.bincount(self.assignment.pairs.gt, minlength=len(self.targets))
        per_image = per_box.new_zeros(self.targets.batch_size).index_add_(0, self.targets.image, per_box)
        return [0, *per_image.cumsum(0).tolist()]

    def places(self, rows: slice) -> Int64[Tensor, "N"]:
        """Position of the prior in (B · P)."""
        pairs, priors = self.assignment.pairs, self.assignment.ignored.shape[1]
        return self.targets.image.index_select(0, pairs.gt[rows]).mul_(priors).add_(pairs.prior[rows])

    def entries(self, rows: slice) -> Int64[Tensor, "N"]:
        """Position of the prior and the class of the ground truth in (B · P · C)."""
        labels = self.targets.labels.index_select(0, self.assignment.pairs.gt[rows])
        return self.places(rows).mul_(self.classes).add_(labels)

    def boxes(self, rows: slice, dtype: torch.dtype) -> Float[Tensor, "N 4"]:
        """The ground truth, laid out column by column."""
        return take_boxes(self.targets.boxes.to(dtype), self.assignment.pairs.gt[rows])


def at_least_float32(predictions: Predictions) -> Predictions:
    """The same predictions, half precision turned into float32."""

    def wide(values: Tensor) -> Tensor:
        return values if values.dtype == torch.float64 else values.float()

    boxes, quality = predictions.boxes, predictions.quality
    return Predictions(
        logits=wide(predictions.logits),
        deltas=predictions.deltas,
        boxes=None if boxes is None else wide(boxes),
        quality=None if quality is None else wide(quality),
    )


def wants_gradient(*parts: Tensor | None) -> bool:
    """Whether somebody will ask for the gradient of one of the tensors."""
    return torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
