"""Predictions that already overlap a box well: whatever they learn, they are no background.

Many rules leave them out of the loss (`Assignment.ignored`) rather than punish them.
"""

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from ..boxes import area, box_centers, box_sizes, pair_iou, take_boxes
from ..priors import Priors
from ..segments import ragged_arange
from ..spatial.windows import Raster, points_in_windows
from ..structures import Predictions, Targets

# IoU and areas are rounded to float32 a handful of times, 6e-8 each, centres to 2^-24 of a coordinate.
SLACK = 1e-4
CENTER_SLACK = 2.0**-21

SIDE = 32
"""Bins along each axis: 20 to 40 px in pictures of usual size, as wide as the windows of common boxes."""

SIZE_CLASSES = 16
"""Areas from 1 px² to 2^30 px² in steps of a factor of 4; the classes at the ends hold the rest."""


def predictions_over_boxes(
    name: str, priors: Priors, targets: Targets, predictions: Predictions, min_iou: float
) -> Bool[Tensor, "B P"]:
    """Predictions whose box has an IoU of more than `min_iou` with any box of its image.

    An IoU of more than t bounds the ratio of the areas by t and 1 / t and the distance of the centres, along
    x and along y, by (1 - t) / 2t of the box's side. Only predictions of a box's size class with their centre
    in that window are compared, wherever their priors lie. The result is exact.

    Args:
        name: of the assigner, for the message.
        min_iou: in (0, 1]; for 1 there are none.

    Raises:
        ValueError: the predictions have no boxes.
    """
    if predictions.boxes is None:
        raise ValueError(
            f"{name} compares predicted boxes, got none; pass predictions with decoded boxes (xyxy px)"
        )
    count = len(priors)
    mask = torch.zeros(targets.batch_size * count, dtype=torch.bool, device=targets.boxes.device)
    if min_iou >= 1 or not len(targets) or not count:
        return mask.view(targets.batch_size, count)
    boxes = predictions.boxes.flatten(0, 1).T.contiguous().T  # column by column
    areas = area(boxes)
    image = torch.arange(targets.batch_size, dtype=torch.int32, device=boxes.device)[:, None]
    room = (_size_class(areas).view(-1, count) + image * SIZE_CLASSES).flatten()
    gt_areas = area(targets.boxes)
    gt, windows, window_room = _windows(targets, gt_areas, min_iou)
    x, y = box_centers(boxes).unbind(1)
    meetings = points_in_windows(
        _raster(priors),
        (x, y),
        room,
        windows,
        window_room,
        targets.batch_size * SIZE_CLASSES,
    )
    for place, window in meetings:
        row = gt.index_select(0, window)
        size, gt_size = areas.index_select(0, place), gt_areas.index_select(0, row)
        alike = torch.minimum(size, gt_size) > (1 - SLACK) * min_iou * torch.maximum(size, gt_size)
        rows = alike.nonzero().squeeze(1)
        place, row = place.index_select(0, rows), row.index_select(0, rows)
        iou = pair_iou(boxes.T.index_select(1, place).T, take_boxes(targets.boxes, row))
        mask[place[iou > min_iou]] = True
    return mask.view(targets.batch_size, count)


def _raster(priors: Priors) -> Raster:
    """Over the picture of the priors."""
    if priors.levels:
        width, height = (
            max(cells * level.stride for cells, level in zip(sizes, priors.levels))
            for sizes in zip(*((level.width, level.height) for level in priors.levels))
        )
        return Raster(0.0, 0.0, width, height, SIDE)
    if not len(priors):
        return Raster(0.0, 0.0, 1.0, 1.0, SIDE)
    corners = torch.cat((priors.centers.amin(0), priors.centers.amax(0)))
    left, top, right, bottom = corners.tolist()
    return Raster(left, top, right, bottom, SIDE)


def _windows(
    targets: Targets, areas: Float[Tensor, "G"], min_iou: float
) -> tuple[Int64[Tensor, "W"], Float[Tensor, "W 4"], Int64[Tensor, "W"]]:
    """For each box and size class that may overlap it enough: row, window of the centres, room."""
    boxes = targets.boxes
    share = (1 + SLACK) * (1 - min_iou) / (2 * min_iou) + SLACK
    reach = share * box_sizes(boxes).clamp(min=0) + CENTER_SLACK * boxes.abs().amax(1, keepdim=True)
    center = box_centers(boxes)
    least = min_iou * (1 - SLACK)
    lowest, highest = _size_class(areas * least).long(), _size_class(areas / least)
    gt, size_class = ragged_arange(highest - lowest + 1, lowest)
    window = torch.cat((center - reach, center + reach), dim=1)
    return gt, window[gt], targets.image[gt] * SIZE_CLASSES + size_class


def _size_class(areas: Float[Tensor, "*N"]) -> Int32[Tensor, "*N"]:
    """Never decreases with the area."""
    # The upper bits of a positive float are its exponent; without the lowest of them, steps of a factor of 4.
    # 1.0 is 0x3F800000.
    return (areas.view(torch.int32) >> 24).sub_(0x3F).clamp_(0, SIZE_CLASSES - 1)
