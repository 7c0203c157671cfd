"""Merging detections of one object found several times: groups around the best one, and their mean box."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .boxes import pair_iou, take_boxes
from .segments import concatenated_ranges
from .spatial.pieces import in_pieces
from .structures import Detections


def merge_by_voting(
    found: Detections, *, min_iou: float = 0.66, soft_min_score: float | None = None
) -> Detections:
    """One box for each group of detections of a class that overlap the best of them.

    The best detection of a class takes all others that overlap it by `min_iou` or more into its group, the
    best of the rest does the same, and so on. A group becomes the mean of its boxes, weighted by their
    scores, with the highest score; a detection alone in its group, and so the only one of its class, stays as
    it is.

    Args:
        found: detections of one picture, from all scales and flips; in any order.
        min_iou: least overlap with the best of the group.
        soft_min_score: soft voting: members of a group are emitted too, where they were found, with score ·
            (1 - IoU with the best) if that is at least this much; 0.05 in PAA. None emits none.

    Returns:
        Detections by descending score; equal scores: groups first, then by position in `found`.

    Source: PAA (maskrcnn-benchmark's multi-scale testing, "vote" and "soft-vote"), from its specification.
    """
    order = found.scores.sort(descending=True, stable=True).indices
    boxes, scores, labels = found.boxes[order].double(), found.scores[order], found.labels[order]
    first, second, iou = _overlapping_pairs(boxes, labels, min_iou)
    leader = _leaders(first, second, len(boxes))
    # The first leader that a box overlaps has taken it; a leader has taken itself.
    owner = torch.where(leader, torch.arange(len(boxes), device=boxes.device), len(boxes))
    taking = leader[first].nonzero().squeeze(1)
    owner.scatter_reduce_(0, second[taking], first[taking], "amin")
    weight = scores.double()[:, None]
    sums = torch.zeros(len(boxes), 5, dtype=torch.float64, device=boxes.device)
    sums.index_add_(0, owner, torch.cat((boxes * weight, weight), dim=1))
    # Boxes of score 0 have no mean; neither needs one a box that is alone.
    alone = (torch.bincount(owner, minlength=len(boxes)) <= 1) | (sums[:, 4] == 0)
    mean = torch.where(alone[:, None], boxes, sums[:, :4] / sums[:, 4:])
    kept = [(mean[leader], scores[leader], labels[leader])]
    if soft_min_score is not None:
        soft = iou.new_zeros(len(boxes))
        joined = (owner[second] == first).nonzero().squeeze(1)
        soft[second[joined]] = scores.double()[second[joined]] * (1 - iou[joined])
        members = ~leader & (soft >= soft_min_score)
        kept.append((boxes[members], soft[members].to(scores), labels[members]))
    merged_boxes, merged_scores, merged_labels = (torch.cat(column) for column in zip(*kept, strict=True))
    best = merged_scores.sort(descending=True, stable=True).indices
    return Detections(merged_boxes[best].to(found.boxes), merged_scores[best], merged_labels[best])


def _overlapping_pairs(
    boxes: Float[Tensor, "N 4"], labels: Int64[Tensor, "N"], min_iou: float
) -> tuple[Int64[Tensor, "M"], Int64[Tensor, "M"], Float[Tensor, "M"]]:
    """Pairs (earlier, later) of boxes of one class that overlap enough, and their IoU."""
    order = labels.sort(stable=True).indices
    sorted_labels = labels[order]
    # Of each box, the boxes of its class that come later.
    places = torch.arange(len(order), device=order.device)
    later = torch.searchsorted(sorted_labels, sorted_labels, right=True) - places - 1

    def part(piece: slice) -> tuple[Tensor, ...]:
        lengths = later[piece]
        others = order[concatenated_ranges(places[piece] + 1, lengths)]
        own = torch.repeat_interleave(order[piece], lengths, output_size=len(others))
        iou = pair_iou(take_boxes(boxes, own), take_boxes(boxes, others))
        rows = (iou >= min_iou).nonzero().squeeze(1)
        return own[rows], others[rows], iou[rows]

    if not len(boxes):
        nothing = labels.new_zeros(0)
        return nothing, nothing, boxes.new_zeros(0)
    first, second, iou = in_pieces(later, part)
    return first, second, iou


def _leaders(first: Int64[Tensor, "M"], second: Int64[Tensor, "M"], count: int) -> Bool[Tensor, "N"]:
    """The boxes that no earlier leader overlaps.

    In rounds: an open box that overlaps no earlier open box leads, and closes those that it overlaps. As many
    rounds as the longest chain of overlaps, few in practice.
    """
    leader = torch.zeros(count, dtype=torch.bool, device=first.device)
    open_ = ~leader
    while bool(open_.any()):
        waiting = torch.zeros_like(leader)
        waiting[second[open_[first]]] = True
        new = open_ & ~waiting
        leader |= new
        open_ &= ~new
        open_[second[new[first]]] = False
    return leader
