"""A guard for rules that weight each class of a prior by itself: they do not work with a softmax."""

import torch
from jaxtyping import Float
from torch import Tensor

_ROWS = 64
"""Rows that are looked at: a softmax shows in all of them, and the rest of the batch need not be read."""

_TOLERANCE = 1e-4
"""Greatest rounding of a sum of probabilities."""

_SPREAD = 0.1
"""Least difference, in logarithms, between rows. Where all are nearly equal nothing is known: 49 logits of
ln(0.02 / 0.98), a usual initial bias, have exponentials that happen to sum to 1."""


def refuse_softmax(logits: Float[Tensor, "B P C"], name: str) -> None:
    """Stop where the class logits are the outputs of a softmax, or their logarithms.

    The numbers that go into a softmax cannot be told from logits of sigmoids and pass.

    Args:
        name: of the assigner, for the message.

    Raises:
        ValueError: the values of each row looked at, or their exponentials, sum to 1.
    """
    images, priors, classes = logits.shape
    if classes < 2 or not images * priors:
        return
    rows = logits.detach()[:, :: max(images * priors // _ROWS, 1)].double().flatten(0, 1)
    # Read as probabilities, and as logarithms of them; nan where they cannot be.
    logarithms = torch.stack((rows.log(), torch.where(rows <= 0, rows, torch.nan)))
    off = (logarithms.exp().sum(2) - 1).abs().amax(1)
    likely = logarithms.clamp(min=-50)  # of a probability that has become 0
    spread = (likely.amax(1) - likely.amin(1)).amax(1)
    as_probabilities, as_logarithms = ((off < _TOLERANCE) & (spread > _SPREAD)).tolist()
    if as_probabilities or as_logarithms:
        what = "probabilities" if as_probabilities else "logarithms of probabilities"
        raise ValueError(
            f"{name}: expected a sigmoid's logit for each of the {classes} classes, got {what} that sum to "
            "1, which come from a softmax: weighting one class would move the others. Use a head with one "
            "sigmoid per class and no background class, and pass the numbers before the sigmoid"
        )
