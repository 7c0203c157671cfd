"""YOLOv5: every anchor whose sides differ from the box's by less than a factor, in up to three cells."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..boxes import box_centers, box_sizes, shape_iou
from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .grid import grid_index
from .pick import owners
from .story import Story

Resolve = Literal["all", "best_iou"]


class YOLOv5Ratio(Assigner):
    """Centre's cell and its nearest neighbours → ratio of the sides → less than `ratio` → all boxes learn.

    On every level. The neighbours are those beside, above and below whose border is less than `offset` cells
    from the centre; the grid must reach more than a cell beyond the centre on that side. With 0.5 that is the
    nearer one along each axis, none where the centre lies exactly between two, and on a border between cells
    the cell before it. A centre outside the grid belongs to the nearest cell. The ratio is that of the
    greater to the smaller side, the larger of both axes.

    Args:
        ratio: sides must differ by less than this factor, more than 1.
        offset: in [0, 1]; 0 for the centre's cell alone, 1 for all four neighbours (the auxiliary head of
            YOLOv7).
        resolve: what becomes of a prior that several boxes want: it learns "all" of them, each pair with
            weight and score 1, and the assignment has no `gt_index()` then; or the one of "best_iou", that of
            the shapes, equal ones by the lowest row.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, priors on no grid.

    Source: ultralytics/yolov5, utils/loss.py (`build_targets`), by description; there is no paper. There a
    prior that several boxes want takes its objectness target from any of them.
    """

    def __init__(
        self,
        *,
        ratio: float = 4.0,
        offset: float = 0.5,
        resolve: Resolve = "all",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not ratio > 1 or not 0 <= offset <= 1:
            raise ValueError(f"expected ratio above 1 and offset in [0, 1], got {ratio=}, {offset=}")
        if resolve not in get_args(Resolve):
            raise ValueError(f"expected resolve in {get_args(Resolve)}, got {resolve!r}")
        self.ratio = ratio
        self.offset = offset
        self.resolve: Resolve = resolve

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        cells = _cells(priors, targets, self.offset)
        # Few pairs, and in float64 sides and ratios are free of rounding that could pass for a decision.
        box_wh = box_sizes(targets.boxes.double()).index_select(0, cells.gt)
        anchor_wh = priors.wh.index_select(0, cells.prior).double()
        ratio = torch.maximum(box_wh / anchor_wh, anchor_wh / box_wh).amax(1)
        alike = ratio < self.ratio
        story.candidates(cells, -ratio, torch.full_like(ratio, -self.ratio))
        story.keep(alike, otherwise="below_threshold")
        candidates = pairs = cells.select(alike)
        if self.resolve == "best_iou":
            iou = shape_iou(box_wh[alike], anchor_wh[alike]).float()
            pairs = candidates.select(owners(candidates, iou, targets, len(priors)))
        return Assignment.hard(pairs, targets, len(priors), levels=priors.levels, candidates=candidates)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}, offset={self.offset}, resolve={self.resolve!r}"


def _cells(priors: Priors, targets: Targets, offset: float) -> Pairs:
    """All priors of the cells that may learn each box, ordered by box, then prior."""
    index = grid_index(priors)
    center = box_centers(targets.boxes.double())[:, None] / index.stride[:, None]  # (G, L, 2), in cells
    before, home, after = _along(center[..., 0], index.width, offset)
    above, row, below = _along(center[..., 1], index.height, offset)
    wide = index.width[None]
    here = row * wide + home
    # In the order of the cells on their level, so that the pairs come out in the order of the priors.
    cell = torch.stack(
        (above * wide + home, row * wide + before, here, row * wide + after, below * wide + home), -1
    )
    listed = (cell != here[..., None]) | (torch.arange(5, device=cell.device) == 2)
    first = index.start[:, None] + cell * index.anchors[:, None]  # (G, L, 5)
    gt, level, place = listed.nonzero().unbind(1)
    anchors = index.anchors[level]
    run = torch.arange(len(gt), device=gt.device).repeat_interleave(anchors)
    begins = anchors.cumsum(0) - anchors
    anchor = torch.arange(len(run), device=gt.device) - begins[run]
    return Pairs(gt[run], first[gt, level, place][run] + anchor)


def _along(
    center: Float[Tensor, "G L"], size: Int64[Tensor, "L"], offset: float
) -> tuple[Int64[Tensor, "G L"], Int64[Tensor, "G L"], Int64[Tensor, "G L"]]:
    """Cell before, of and after the centre along one axis; the centre's own where there is no neighbour."""
    home = center.floor().long().clamp(min=0).minimum(size - 1)

    def neighbour(wanted: Bool[Tensor, "G L"], moved: Float[Tensor, "G L"]) -> Int64[Tensor, "G L"]:
        return torch.where(wanted, moved.floor().long().clamp(min=0).minimum(size - 1), home)

    rest = size - center
    before = neighbour((center % 1 < offset) & (center > 1), center - offset)
    after = neighbour((rest % 1 < offset) & (rest > 1), center + offset)
    return before, home, after
