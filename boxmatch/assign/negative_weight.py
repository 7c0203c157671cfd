"""How strongly a prior inside a box is still pushed down as background of the box's class."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..reproducible import power
from ..segments import segment_lengths, segment_max, segment_min
from ..spatial.pieces import in_pieces
from ..structures import Pairs, Targets

NegativeConflict = Literal["min", "max", "last"]
DegenerateBag = Literal["zero", "official"]

LAST_BOX_DECIDES = {
    "order_of_boxes": "neg_conflict='last': of several boxes of one class the last in the annotation decides"
}
"""What assigners say to `boxmatch.conformance` under that option."""

# Added to numerator and denominator in the official code.
_EPS = 1e-12


def bag_curve(
    iou: Float[Tensor, "N"],
    segment: Int64[Tensor, "N"],
    count: int,
    *,
    low: float = 0.5,
    exponent: float = 2.0,
    degenerate: DegenerateBag = "zero",
) -> Float[Tensor, "N"]:
    """1 below `low`; from there down to 0 for the prior of each box whose prediction overlaps it best.

    With y = (1 - u^exponent) / (1 - low^exponent), the value of a pair with u >= low is
    (y - min y) / (min(1, max y) - min y), minimum and maximum over all pairs of its box.

    Args:
        iou: of the predicted box and the ground truth.
        segment: ground truth of each pair.
        count: number of ground truths.
        degenerate: where all of a box's pairs above `low` overlap it equally: "zero" gives the best pair 0 as
            everywhere else; "official" gives 1, so that the only prior of a tiny object is pushed down.

    Source: strongwolf/DW, `dw_head.py`.
    """
    y = (1 - power(iou, exponent)).div_(1 - low**exponent)
    best = segment_min(y, segment, count)
    span = segment_max(y, segment, count).clamp_(max=1).sub_(best).add_(_EPS)
    value = y.sub_(best.index_select(0, segment))
    if degenerate == "official":
        value.add_(_EPS)
    return value.div_(span.index_select(0, segment)).masked_fill_(iou < low, 1)


def fixed_curve(
    iou: Float[Tensor, "N"], *, low: float = 0.5, high: float = 0.95, exponent: float = 2.0
) -> Float[Tensor, "N"]:
    """1 below `low`, 0 above `high`, and in between linear in u^exponent.

    Source: Li et al. 2022 (DW), sec. 3.4, as far as it could be confirmed; see docs/methods/dual_weight.md.
    """
    top, bottom = high**exponent, low**exponent
    return (top - power(iou, exponent)).div_(top - bottom).clamp_(0, 1)


def settle_same_class(
    pairs: Pairs,
    values: Float[Tensor, "N"],
    targets: Targets,
    prior_count: int,
    rule: NegativeConflict,
) -> Float[Tensor, "N"]:
    """Give all pairs of one prior with boxes of one class the same value, so that they can be stored.

    Args:
        pairs: ordered by ground truth.
        values: of each pair by itself.
        prior_count: number of priors per image.
        rule: "min", "max", or "last": that of the highest row of the targets.
    """
    slot, slots = _shared_slots(targets)
    if not bool((slot >= 0).any()):
        return values
    per_box = torch.bincount(pairs.gt, minlength=len(targets))
    per_image = torch.zeros_like(slots).index_add_(0, targets.image, per_box)
    ends, first_slot = ([0, *counts.cumsum(0).tolist()] for counts in (per_image, slots))

    def part(images: slice) -> tuple[Tensor]:
        mine = slice(ends[images.start], ends[images.stop])
        first, last = first_slot[images.start], first_slot[images.stop]
        owner, settled = pairs.gt[mine], values[mine].clone()
        rows = (slot.index_select(0, owner) >= 0).nonzero().squeeze(1)
        cell = slot.index_select(0, owner.index_select(0, rows)).sub_(first).mul_(prior_count)
        cell.add_(pairs.prior[mine].index_select(0, rows))
        picked = _of_each_cell(settled.index_select(0, rows), cell, (last - first) * prior_count, rule)
        return (settled.index_copy_(0, rows, picked),)

    # Some images at a time: the cells are priors times classes with several boxes.
    return in_pieces(slots * prior_count + per_image, part, cached=True)[0]


def _of_each_cell(
    values: Float[Tensor, "M"], cell: Int64[Tensor, "M"], count: int, rule: NegativeConflict
) -> Float[Tensor, "M"]:
    """The value that the rule picks for each pair's cell."""
    if rule == "last":
        # Pairs are ordered by ground truth.
        position = torch.arange(len(cell), device=cell.device)
        return values.index_select(0, segment_max(position, cell, count).index_select(0, cell))
    reduce = segment_min if rule == "min" else segment_max
    return reduce(values, cell, count).index_select(0, cell)


def _shared_slots(targets: Targets) -> tuple[Int64[Tensor, "G"], Int64[Tensor, "B"]]:
    """Number the (image, class) pairs that have several boxes, image by image.

    Returns:
        slot: number for each ground truth, -1 where it is the only one of its class.
        slots: how many there are in each image.
    """
    classes = int(targets.labels.max()) + 1 if len(targets) else 1
    key = targets.image * classes + targets.labels
    kinds, kind, sizes = key.unique(return_inverse=True, return_counts=True)
    shared = sizes > 1
    slot = torch.where(shared, shared.cumsum(0) - 1, -1).index_select(0, kind)
    return slot, segment_lengths((kinds // classes)[shared], targets.batch_size)
