"""Un-reduced classification losses: one value per logit, float32 or wider, no weights, no averages."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def check_gamma(gamma: float, name: str = "gamma") -> None:
    """Raise ValueError unless a focal exponent is 0 or at least 1.

    Between the two the slope of (1 - p)^gamma is infinite where a prediction is perfect, and training ends in
    NaN.
    """
    if gamma != 0 and not gamma >= 1:
        raise ValueError(
            f"expected {name} = 0 or {name} >= 1, got {gamma}; the slope of values in between is "
            "infinite at a perfect prediction"
        )


def bce(logits: Float[Tensor, "*S"], targets: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Binary cross entropy of each logit against a target in [0, 1]."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal_loss(
    logits: Float[Tensor, "*S"], targets: Float[Tensor, "*S"], gamma: float
) -> Float[Tensor, "*S"]:
    """Focal loss (1 - p)^gamma BCE with p = exp(-BCE) and without class balance (alpha = 1).

    For targets of 0 and 1 this is the published loss; p extends it to targets in between, where it does not
    reach 0: the cross entropy of a soft target has a positive minimum.

    Args:
        logits: any shape.
        targets: in [0, 1].
        gamma: 0 (plain cross entropy) or at least 1, see `check_gamma`.

    Source: Lin et al. 2017, eq. 4; zh320/simple-yolo-pytorch, `core/loss.py` (soft targets).
    """
    loss = bce(logits, targets)
    if gamma == 0:
        return loss
    return (-torch.expm1(-loss)).pow(gamma) * loss


def sigmoid_focal(
    logits: Float[Tensor, "*S"], targets: Float[Tensor, "*S"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*S"]:
    """Balanced focal loss: alpha (1 - p)^gamma BCE for positives, (1 - alpha) p^gamma BCE for negatives.

    Values and gradients are finite at every finite logit.

    Args:
        logits: any shape.
        targets: 1 for positives, 0 for negatives.
        alpha: in [0, 1]; 0.25 in the paper.
        gamma: 0 or at least 1, see `check_gamma`; 2 in the paper.

    Source: Lin et al. 2017, eq. 5.
    """
    # A positive pays as a negative of the opposite logit would, so that one formula serves both.
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return balance * negative_focal(logits * (1 - 2 * targets), gamma)


def negative_focal(logits: Float[Tensor, "*S"], gamma: float = 2.0) -> Float[Tensor, "*S"]:
    """Focal loss p^gamma BCE of negatives, without class balance: where all are, in half the time.

    Args:
        logits: any shape.
        gamma: 0 or at least 1, see `check_gamma`; 2 in the paper.
    """
    return logits.sigmoid().pow(gamma) * softplus(logits)


def quality_focal(
    logits: Float[Tensor, "*S"], targets: Float[Tensor, "*S"], beta: float = 2.0
) -> Float[Tensor, "*S"]:
    """Quality focal loss |target - sigmoid(logit)|^beta BCE: 0 where the prediction equals a soft target.

    Args:
        logits: any shape.
        targets: in [0, 1], the IoU of positives.
        beta: at least 1; 2 in the paper.

    Source: Li et al. 2020 (Generalized Focal Loss).
    """
    return (targets - logits.sigmoid()).abs().pow(beta) * bce(logits, targets)


def varifocal(
    logits: Float[Tensor, "*S"], targets: Float[Tensor, "*S"], alpha: float = 0.75, gamma: float = 2.0
) -> Float[Tensor, "*S"]:
    """Varifocal loss: positives (target > 0) weigh as much as their target, negatives alpha p^gamma.

    Args:
        logits: any shape.
        targets: in [0, 1], the IoU of positives, 0 for negatives.
        alpha: weight of negatives; 0.75 in the paper.
        gamma: at least 1; 2 in the paper.

    Source: Zhang et al. 2021 (VarifocalNet).
    """
    weight = torch.where(targets > 0, targets, alpha * logits.sigmoid().pow(gamma))
    return weight * bce(logits, targets)
