"""The boxes nearest to each ground truth by L1 distance, among predictions that may lie anywhere."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..boxes import xyxy_to_cxcywh
from ..priors import Priors
from ..segments import segment_topk
from ..spatial.windows import points_in_windows
from ..structures import Targets
from .prediction_overlap import raster_of

SLACK = 1e-5
"""Of distances and coordinates in float32: rounded a handful of times, 6e-8 each."""


def nearest_boxes(
    priors: Priors, boxes_cxcywh: Float[Tensor, "B P 4"], targets: Targets, k: int
) -> tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]]:
    """The k boxes of its image nearest to each ground truth, nearest first, equal distances by lowest prior.

    The distance is the sum of the differences of centre x, centre y, width and height. It decides in float64:
    boxes on one diagonal are equally near, and float32 would leave the choice to rounding. The boxes of the
    priors nearest to the ground truth bound it from above; only boxes whose centre lies within that bound are
    compared, wherever they are.

    Args:
        priors: the places of the boxes.
        boxes_cxcywh: of every image, or of one that stands for all.
        k: 1 or more; K is less where there are fewer priors.

    Returns:
        Prior and distance.
    """
    count, gts, wanted = len(priors), len(targets), min(k, len(priors))
    if not gts:
        empty = torch.zeros((0, wanted), dtype=torch.int64, device=targets.boxes.device)
        return empty, empty.double()
    table = boxes_cxcywh.flatten(0, 1).T.contiguous()  # (4, B · P), column by column
    gt_table = xyxy_to_cxcywh(targets.boxes).T.contiguous()  # (4, G)
    rooms = len(boxes_cxcywh)
    room = targets.image if rooms > 1 else torch.zeros_like(targets.image)

    def exact(place: Int64[Tensor, "N"], gt: Int64[Tensor, "N"]) -> Float64[Tensor, "N"]:
        return _distance(table.index_select(1, place).double(), gt_table.index_select(1, gt))

    # As many as the wanted have in all anchors of their cells: the shape may fit in one of them only.
    anchors = max((level.anchors for level in priors.levels), default=1)
    near = priors.nearest(targets, wanted * anchors)
    place = room.index_select(0, near.gt).mul_(count).add_(near.prior)
    bound = _smallest(near.gt, near.prior, exact(place, near.gt), gts, wanted)[1][:, -1]
    bound = ((1 + SLACK) * bound + SLACK * targets.boxes.abs().amax(1)).float()
    center = gt_table[:2].T
    parts = []
    for place, gt in points_in_windows(
        raster_of(priors),
        (table[0], table[1]),
        torch.arange(rooms, device=room.device).repeat_interleave(count),
        torch.cat((center - bound[:, None], center + bound[:, None]), dim=1),
        room,
        rooms,
    ):
        apart = _distance(table.index_select(1, place), gt_table.index_select(1, gt))
        within = (apart <= bound.index_select(0, gt)).nonzero().squeeze(1)
        parts.append((place.index_select(0, within), gt.index_select(0, within)))
    place, gt = (torch.cat(column) for column in zip(*parts))
    order = (gt * count + place % count).argsort()
    place, gt = place[order], gt[order]
    return _smallest(gt, place % count, exact(place, gt), gts, wanted)


def _distance(boxes: Float[Tensor, "4 N"], gts: Float[Tensor, "4 N"]) -> Float[Tensor, "N"]:
    x, y, width, height = boxes.sub_(gts).abs_()
    return x + y + width + height


def _smallest(
    gt: Int64[Tensor, "N"], prior: Int64[Tensor, "N"], distance: Float64[Tensor, "N"], gts: int, k: int
) -> tuple[Int64[Tensor, "G K"], Float64[Tensor, "G K"]]:
    """Prior and distance of the k nearest of each ground truth; pairs come by ground truth, then prior."""
    kept = segment_topk(-distance, gt, gts, k).nonzero().squeeze(1)
    apart, order = distance[kept].view(gts, k).sort(dim=1, stable=True)
    return prior[kept].view(gts, k).gather(1, order), apart
