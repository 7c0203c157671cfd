"""How sure a prediction is of an object of the box's class, at the place of the box."""

from jaxtyping import Float, Float64
from torch import Tensor


def joint_score(
    class_logit: Float[Tensor, "N"],
    quality_logit: Float[Tensor, "N"] | None,
    localization: Float[Tensor, "N"],
) -> Float64[Tensor, "N"]:
    """sigmoid(class logit) · sigmoid(objectness logit) · localisation score of each pair.

    In float64: rounded once after all that follows, results have the same bits everywhere (see
    `reproducible`).

    Args:
        quality_logit: None for a network without an objectness branch, for a factor of 1.
        localization: how well the predicted box fits the ground truth, in [0, 1].
    """
    score = class_logit.double().sigmoid()
    if quality_logit is not None:
        score = score * quality_logit.double().sigmoid()
    return score * localization
