"""Numbers that tell whether a soft assignment is in balance; they are logged and no part of the loss."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..structures import Targets
from .soft_pairs import SoftPairs


@torch.no_grad()
def soft_diagnostics(
    pairs: SoftPairs,
    targets: Targets,
    *,
    positive: Float[Tensor, ""],
    negative: Float[Tensor, ""],
    normaliser: Float[Tensor, ""],
) -> dict[str, Float[Tensor, ""]]:
    """Balance and size of a soft assignment, on the device of the loss.

    Args:
        pairs: of the batch.
        targets: as annotated; those of the assignment may ignore more.
        positive: sum of the weighted positive terms.
        negative: the weighted negative term.
        normaliser: what the negative term was divided by.

    Returns:
        pairs: number of pairs.
        weight_per_box: mean over boxes with a pair of the sum of its weights; 0 without pairs.
        shared_priors: number of priors that learn more than one box.
        boxes_left_out: objects that the assigner treated as ignored.
        negative_normaliser: `normaliser`.
        positive_to_negative: `positive` / `negative`; 0 where both are 0.
    """
    assignment = pairs.assignment
    weight = assignment.weight.detach().float()
    per_box = torch.zeros(len(targets), device=weight.device)
    served = per_box.index_add(0, assignment.pairs.gt, torch.ones_like(weight)) > 0
    left_out = assignment.targets.ignore & ~targets.ignore
    numbers = {
        "pairs": weight.new_tensor(float(len(pairs))),
        "weight_per_box": weight.sum() / served.sum().clamp(min=1),
        "shared_priors": (_owners(pairs) > 1).sum(),
        "boxes_left_out": left_out.sum(),
        "negative_normaliser": normaliser,
        "positive_to_negative": positive / negative.clamp(min=torch.finfo(torch.float32).tiny),
    }
    return {name: value.detach().float() for name, value in numbers.items()}


def _owners(pairs: SoftPairs) -> Int64[Tensor, "BP"]:
    """Number of boxes of each (image, prior)."""
    count = torch.zeros(pairs.ignored.numel(), dtype=torch.int64, device=pairs.ignored.device)
    for piece in pairs.pieces():
        place = pairs.places(piece)
        count.index_add_(0, place, torch.ones_like(place))
    return count
