"""How sure a prediction is of an object of the box's class, at the place of the box."""

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..structures import Pairs, Predictions, Targets
from .take import class_logits, quality_logits


def joint_score(
    predictions: Predictions,
    place: Int64[Tensor, "N"],
    pairs: Pairs,
    targets: Targets,
    localization: Float[Tensor, "N"],
) -> Float64[Tensor, "N"]:
    """sigmoid(class logit) · sigmoid(objectness logit) · localisation score of each pair.

    In float64: rounded once after all that follows, results have the same bits everywhere (see
    `reproducible`). Without an objectness branch the second factor is 1.

    Args:
        place: from `take.places`.
        localization: how well the predicted box fits the ground truth, in [0, 1].

    Raises:
        ValueError: a label is no class of the predictions.
    """
    score = class_logits(predictions, place, pairs, targets).double().sigmoid()
    quality = quality_logits(predictions, place)
    if quality is not None:
        score = score * quality.double().sigmoid()
    return score * localization
