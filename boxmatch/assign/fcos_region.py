"""FCOS: the points near the middle of a box learn it, on the level that is meant for its size."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..boxes import area, box_centers, box_sizes, take_boxes
from ..priors import Priors
from ..spatial import blocks
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .grid import grid_index
from .pick import owners
from .piecewise import piecewise
from .story import Story

RANGE_IN_STRIDES = 8
"""Where a level's sizes end, in strides: 64 px at stride 8, 128 at 16, … in the paper."""


class FCOSRegion(Assigner):
    """Inside the box, near its centre → size range of the level → smallest area owns the prior.

    Its size, as a prior sees it, is the greatest of the four distances from the prior's centre to the sides
    of the box. Both ends of a range belong to it: a distance on the border of two ranges is positive on both
    levels. A box without a point in its middle, as one that is smaller than a cell, gets no pair.

    Args:
        center_sampling: half side of the square around the box's centre, in strides of the level, that the
            prior's centre must lie in; clipped by the box, and without its border. None takes all of the box.
        ranges: smallest and largest size in pixels for each level. None derives them from the strides: each
            level ends at 8 strides and begins where the one before ends; the first begins at 0, the last has
            no end. For strides 8 to 128 these are the paper's: 64, 128, 256, 512.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, priors on no grid, or on another number of
            levels than there are ranges.

    Source: Tian et al. 2019 (FCOS), sec. 3.2; centre sampling from the authors' later code.
    """

    def __init__(
        self,
        *,
        center_sampling: float | None = 1.5,
        ranges: Sequence[tuple[float, float]] | None = None,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if center_sampling is not None and not center_sampling > 0:
            raise ValueError(f"expected center_sampling above 0 strides or None, got {center_sampling}")
        if ranges is not None and not (ranges and all(low < high for low, high in ranges)):
            raise ValueError(f"expected one (low, high) range with low < high per level, got {ranges}")
        self.center_sampling = center_sampling
        self.ranges = None if ranges is None else tuple((float(low), float(high)) for low, high in ranges)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        ranges = self._ranges_of(priors)

        def candidates(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            return self._candidates(priors, part, ranges, story), ()

        windows = self._windows(priors, targets, ranges, story.active)
        lengths = blocks.count_between(grid_index(priors), windows)
        pairs, _ = piecewise(targets, lengths, candidates, story)
        owned = owners(pairs, -area(targets.boxes).index_select(0, pairs.gt), targets, len(priors))
        return Assignment.hard(
            pairs.select(owned), targets, len(priors), levels=priors.levels, candidates=pairs
        )

    def _candidates(
        self, priors: Priors, targets: Targets, ranges: Float[Tensor, "L 2"], story: Story
    ) -> Pairs:
        """The pairs that satisfy the rule, before contested priors are resolved."""
        pairs = blocks.between(grid_index(priors), self._windows(priors, targets, ranges, story.active))
        x, y = (line.index_select(0, pairs.prior) for line in priors.centers.unbind(1))
        boxes = take_boxes(targets.boxes, pairs.gt)
        story.candidates(pairs)
        if story.active:
            near = self._near_center(boxes, x, y, priors.stride.index_select(0, pairs.prior))
            story.keep(near, otherwise="outside")
            rows = near.nonzero().squeeze(1)
            pairs, boxes, x, y = pairs.select(rows), boxes[rows], x[rows], y[rows]
        x1, y1, x2, y2 = boxes.unbind(1)
        size = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
        low, high = ranges.index_select(0, priors.level.index_select(0, pairs.prior)).unbind(1)
        fitting = (size >= low) & (size <= high)
        story.keep(fitting, otherwise="wrong_level")
        return pairs.select(fitting)

    def _windows(
        self, priors: Priors, targets: Targets, ranges: Float[Tensor, "L 2"], everything: bool
    ) -> Float[Tensor, "G L 4"]:
        """Where candidates may lie for each box and level; `everything` inside the box if all are told of."""
        index = grid_index(priors)
        windows = targets.boxes[:, None].expand(-1, len(index), -1)
        if everything:
            return windows
        if self.center_sampling is not None:
            windows = _center_region(targets.boxes[:, None], self.center_sampling * index.stride[:, None])
        # A point inside sees a size between half the longer side and all of it: other levels have nothing.
        longer = box_sizes(targets.boxes).amax(1)[:, None]
        suitable = (longer >= ranges[:, 0]) & (longer / 2 <= ranges[:, 1])  # (G, L)
        return torch.where(suitable[..., None], windows, -torch.inf)

    def _near_center(
        self, boxes: Float[Tensor, "N 4"], x: Tensor, y: Tensor, stride: Tensor
    ) -> Bool[Tensor, "N"]:
        if self.center_sampling is None:
            return torch.ones_like(x, dtype=torch.bool)
        x1, y1, x2, y2 = _center_region(boxes, self.center_sampling * stride[:, None]).unbind(1)
        return (x > x1) & (x < x2) & (y > y1) & (y < y2)

    def _ranges_of(self, priors: Priors) -> Float[Tensor, "L 2"]:
        """Smallest and largest size for each level."""
        strides = grid_index(priors).stride
        if self.ranges is None:
            ends = RANGE_IN_STRIDES * strides
            ranges = torch.stack((ends.roll(1), ends), dim=1)
            ranges[0, 0], ranges[-1, 1] = 0, torch.inf
            return ranges
        if len(self.ranges) != len(strides):
            raise ValueError(
                f"FCOSRegion: expected priors on {len(self.ranges)} levels, one per range, got "
                f"{len(strides)} levels; give other ranges, or none to derive them from the strides"
            )
        return torch.tensor(self.ranges, device=strides.device)

    def extra_repr(self) -> str:
        return f"center_sampling={self.center_sampling}, ranges={self.ranges}"


def _center_region(boxes: Tensor, half: Tensor) -> Tensor:
    """The square around each box's centre, clipped by the box."""
    center = box_centers(boxes)
    low = torch.maximum(center - half, boxes[..., :2])
    high = torch.minimum(center + half, boxes[..., 2:])
    return torch.cat((low, high), dim=-1)
