"""Dense forms of the assigners that look at priors alone, and of those that only leave predictions out.

Letters: M boxes of the picture, P priors, L levels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxmatch.assign import ATSS, FCOSRegion, GridMaxIoU, MaxIoU, Uniform, YOLOv3, YOLOv5Ratio
from boxmatch.assign.fcos_region import RANGE_IN_STRIDES
from boxmatch.assign.grid import GridAssigner, union_eps
from boxmatch.bench.dense_picture import (
    Matched,
    Picture,
    area_matrix,
    best_of_each_prior,
    center_offset,
    distance_matrix,
    inside_matrix,
    iou_matrix,
    near_center,
    predicted_iou_matrix,
)
from boxmatch.boxes import area, box_centers, box_sizes, shape_iou, xyxy_to_cxcywh


def single_grid(assigner: GridAssigner, picture: Picture) -> Matched:
    """Shape IoU with the anchors of the centre's cell."""
    iou = _grid_iou(picture, _shape_intersection(picture))
    return best_of_each_prior(iou, _cells_away(picture, 0) & (iou >= assigner.match_iou_thres))


def nearby_grid(assigner: GridAssigner, picture: Picture) -> Matched:
    """Shape IoU with the anchors of the 3 × 3 cells around the centre."""
    iou = _grid_iou(picture, _shape_intersection(picture))
    return best_of_each_prior(iou, _cells_away(picture, 1) & (iou >= assigner.match_iou_thres))


def all_grid(assigner: GridAssigner, picture: Picture) -> Matched:
    """IoU with all anchors."""
    boxes, priors = picture.boxes[:, None], picture.priors.boxes
    overlap = boxes[..., 2:].minimum(priors[:, 2:]) - boxes[..., :2].maximum(priors[:, :2])
    iou = _grid_iou(picture, overlap.clamp(min=0).prod(2))
    return best_of_each_prior(iou, iou > assigner.match_iou_thres)


def max_iou(assigner: MaxIoU, picture: Picture) -> Matched:
    """The IoU of all pairs, its maxima along both sides; the boxes' best priors go first."""
    iou = iou_matrix(picture)
    highest = iou.amax(1, keepdim=True)
    rescued = (iou == highest) & (highest > 0) & (highest >= assigner.min_positive)
    rest = (iou >= assigner.positive) & ~rescued.any(0)
    first, second = best_of_each_prior(iou, rescued), best_of_each_prior(iou, rest)
    return Matched(torch.cat((first.gt, second.gt)), torch.cat((first.prior, second.prior)))


def grid_max_iou(assigner: GridMaxIoU, picture: Picture) -> Matched:
    """As `max_iou`, where a box may only have the anchors of its centre's cell."""
    iou, near = iou_matrix(picture), _cells_away(picture, 0)
    mine = iou.masked_fill(~near, -1)
    highest = mine.amax(1, keepdim=True)
    rescued = near & (iou == highest) & (highest > assigner.min_positive)
    rest = near & (iou > assigner.positive) & ~rescued.any(0)
    first, second = best_of_each_prior(iou, rescued), best_of_each_prior(iou, rest)
    prior = torch.cat((first.prior, second.prior))
    ignored = (iou > assigner.negative).any(0).index_fill(0, prior, False)
    return Matched(torch.cat((first.gt, second.gt)), prior, None, ignored)


def atss(assigner: ATSS, picture: Picture) -> Matched:
    """The distances and IoUs of all pairs; candidates are gathered from them level by level."""
    iou, candidates = iou_matrix(picture), nearest_of_each_level(picture, assigner.topk)
    found = iou.gather(1, candidates)
    threshold = found.mean(1) + found.std(1)
    chosen = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, candidates, found >= threshold[:, None])
    return best_of_each_prior(iou, chosen & inside_matrix(picture, assigner.inside_margin))


def nearest_of_each_level(picture: Picture, cells: int) -> Tensor:
    """The priors of the nearest cells of each level, (M, K)."""
    distance = center_offset(picture).square().sum(2)
    found, start = [], 0
    for level in picture.priors.levels:
        part = distance[:, start : start + len(level)]
        count = min(cells * level.anchors, len(level))
        found.append(part.topk(count, dim=1, largest=False).indices + start)
        start += len(level)
    return torch.cat(found, 1)


def fcos_region(assigner: FCOSRegion, picture: Picture) -> Matched:
    """The four distances of all pairs."""
    distance = distance_matrix(picture)
    kept = distance.amin(2) > 0
    if assigner.center_sampling is not None:
        kept &= near_center(picture, assigner.center_sampling)
    size = distance.amax(2)
    ends = torch.tensor([RANGE_IN_STRIDES * level.stride for level in picture.priors.levels])
    low, high = ends.roll(1).float(), ends.float()
    low[0], high[-1] = 0, torch.inf
    level = picture.priors.level
    return best_of_each_prior(-area_matrix(picture), kept & (size >= low[level]) & (size <= high[level]))


def yolov3(assigner: YOLOv3, picture: Picture) -> Matched:
    """Shape IoU with all anchors; the IoU of all predictions for the ignored ones."""
    iou = shape_iou(box_sizes(picture.boxes).double()[:, None], picture.priors.wh.double())
    prior = iou.masked_fill(~_cells_away(picture, 0), -1).argmax(1)
    gt = torch.arange(len(prior))
    last = torch.full((len(picture.priors),), -1).scatter_reduce(0, prior, gt, "amax")
    ignored = (predicted_iou_matrix(picture) > assigner.ignore_iou).any(0)
    return Matched(gt, prior, (last[prior] == gt).float(), ignored.index_fill(0, prior, False))


def yolov5_ratio(assigner: YOLOv5Ratio, picture: Picture) -> Matched:
    """The ratio of the sides and the distance in cells of all pairs."""
    box, anchor = box_sizes(picture.boxes).double()[:, None], picture.priors.wh.double()
    alike = torch.maximum(box / anchor, anchor / box).amax(2) < assigner.ratio
    center = box_centers(picture.boxes.double())[:, None] / picture.priors.stride[:, None]  # (M, P, 2), cells
    size = _grid_size(picture)
    home = center.floor().clamp(min=0).minimum(size - 1)
    away = (picture.priors.centers / picture.priors.stride[:, None]).floor() - home
    before = (center % 1 < assigner.offset) & (center > 1) & (away == -1)
    after = ((size - center) % 1 < assigner.offset) & (size - center > 1) & (away == 1)
    step = (before | after) & (away.flip(2) == 0)
    gt, prior = (alike & ((away == 0).all(2) | step.any(2))).nonzero().unbind(1)
    return Matched(gt, prior)


def uniform(assigner: Uniform, picture: Picture) -> Matched:
    """L1 distances of all predictions and all anchors; the last claim on a prior counts."""
    assert picture.predicted is not None
    boxes = xyxy_to_cxcywh(picture.boxes).double()
    anchors = torch.cat((picture.priors.centers, picture.priors.wh), 1)
    # L1 distances are often equal, and topk leaves open which it takes: the first, by next to nothing.
    tie = 1e-9 * torch.arange(len(anchors)).double()
    nearest = [
        (torch.cdist(boxes, places.double(), p=1) + tie).topk(assigner.topk, largest=False).indices
        for places in (xyxy_to_cxcywh(picture.predicted), anchors)
    ]
    prior = torch.stack(nearest, 2).permute(1, 2, 0).flatten()  # rank, then prediction or anchor, then box
    gt = torch.arange(len(boxes)).repeat(2 * assigner.topk)
    iou = iou_matrix(picture)[gt, prior]
    last = torch.full((len(picture.priors),), -1)
    last[prior] = torch.arange(len(prior))  # in order, on the CPU
    given_up = iou[last[prior]] < assigner.positive_iou
    ignored = (predicted_iou_matrix(picture) > assigner.ignore_iou).any(0)
    ignored[prior] = given_up
    key, count = (gt * len(picture.priors) + prior)[(iou >= assigner.positive_iou) & ~given_up].unique(
        return_counts=True
    )
    return Matched(key // len(picture.priors), key % len(picture.priors), count.float(), ignored)


def _shape_intersection(picture: Picture) -> Float[Tensor, "M P"]:
    return box_sizes(picture.boxes)[:, None].minimum(picture.priors.wh).prod(2)


def _grid_iou(picture: Picture, inter: Float[Tensor, "M P"]) -> Float[Tensor, "M P"]:
    eps = union_eps(picture.priors)[picture.priors.level]
    return inter / (area(picture.boxes)[:, None] + picture.priors.wh.prod(1) - inter + eps)


def _grid_size(picture: Picture) -> Float[Tensor, "P 2"]:
    """Columns and rows of each prior's level."""
    sizes = [(float(level.width), float(level.height)) for level in picture.priors.levels]
    return torch.tensor(sizes)[picture.priors.level]


def _cells_away(picture: Picture, reach: int) -> Bool[Tensor, "M P"]:
    """Whether the prior's cell is at most `reach` columns and rows from that of the box's centre."""
    stride = picture.priors.stride[:, None]
    cell = (picture.priors.centers / stride).floor()
    home = (
        (box_centers(picture.boxes)[:, None] / stride).floor().clamp(min=0).minimum(_grid_size(picture) - 1)
    )
    return ((cell - home).abs() <= reach).all(2)
