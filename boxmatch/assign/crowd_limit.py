"""A limit to the boxes of a picture that are assigned, for crowds whose pairs do not fit into memory."""

import warnings
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from ..priors import Priors
from ..segments import budget_slices, segment_topk
from ..spatial.pieces import PAIR_BUDGET
from ..structures import Assignment, Targets


def beyond_limit(targets: Targets, limit: int, name: str) -> Bool[Tensor, "G"]:
    """The objects of each image that are left out: all but the `limit` largest, of equal ones the later.

    Warns when there are any; Python shows the same warning once.

    Args:
        targets: ignore regions neither count nor are left out.
        limit: objects per image, 1 or more.
        name: of the assigner, for the message.
    """
    left_out = torch.zeros_like(targets.ignore)
    objects = (~targets.ignore).nonzero().squeeze(1)
    sides = targets.boxes[objects, 2:] - targets.boxes[objects, :2]
    kept = segment_topk(sides.prod(1), targets.image[objects], targets.batch_size, limit)
    left_out[objects[~kept]] = True
    if bool(left_out.any()):
        # Without numbers, which would make each text new and show it again.
        warnings.warn(
            f"{name}: a picture has more than max_gt_per_image={limit} boxes; the smallest beyond them teach "
            "nothing and are no background either (`boxes_left_out` in the log of a run counts them)",
            stacklevel=4,
        )
    return left_out


def without_background_in(
    left_out: Bool[Tensor, "G"], assignment: Assignment, priors: Priors, targets: Targets
) -> Assignment:
    """The same assignment, where priors inside the boxes left out take no part unless they learn another."""
    ignored, rows = assignment.ignored.clone(), targets.select(left_out)
    # Some boxes at a time: the limit is there to save memory.
    for piece in budget_slices(priors.count_inside(rows), PAIR_BUDGET):
        part = rows.select(piece)
        pairs = priors.inside(part)
        ignored[part.image[pairs.gt], pairs.prior] = True
    learned = torch.zeros_like(ignored)
    learned[assignment.image, assignment.pairs.prior] = True
    return replace(assignment, ignored=assignment.ignored | (ignored & ~learned))
