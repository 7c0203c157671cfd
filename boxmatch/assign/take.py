"""What a network says about each pair: rows of predictions, gathered for long lists of pairs."""

from dataclasses import replace

from jaxtyping import Float, Int64
from torch import Tensor

from ..boxes import take_boxes
from ..structures import Pairs, Predictions, Targets


def places(pairs: Pairs, targets: Targets, prior_count: int) -> Int64[Tensor, "N"]:
    """Row of each pair's (image, prior) in predictions flattened to (B · P, …)."""
    # In place, because these lists are long and fresh memory costs more than arithmetic.
    return targets.image.index_select(0, pairs.gt).mul_(prior_count).add_(pairs.prior)


def class_logits(
    predictions: Predictions, place: Int64[Tensor, "N"], pairs: Pairs, targets: Targets
) -> Float[Tensor, "N"]:
    """Logit of the class of each pair's ground truth at its prior.

    Args:
        place: from `places`.

    Raises:
        ValueError: a label is no class of the predictions.
    """
    classes = predictions.logits.shape[2]
    # Every index below depends on it, and a wrong one would read another prior's logit in silence.
    if len(targets) and int(targets.labels.max()) >= classes:
        raise ValueError(
            f"expected labels below {classes}, the number of classes of the predictions, got "
            f"{int(targets.labels.max())}; give the detector as many classes as the data has"
        )
    column = targets.labels.index_select(0, pairs.gt)
    return predictions.logits.flatten().index_select(0, (place * classes).add_(column))


def predicted_boxes(predictions: Predictions, place: Int64[Tensor, "N"], name: str) -> Float[Tensor, "N 4"]:
    """Predicted box of each pair's prior, laid out column by column.

    Args:
        place: from `places`.
        name: of the assigner, for the message.

    Raises:
        ValueError: the predictions have no boxes.
    """
    if predictions.boxes is None:
        raise ValueError(
            f"{name} compares predicted boxes, got none; pass predictions with decoded boxes (xyxy px)"
        )
    return take_boxes(predictions.boxes.flatten(0, 1), place)


def quality_logits(predictions: Predictions, place: Int64[Tensor, "N"]) -> Float[Tensor, "N"] | None:
    """Quality logit of each pair's prior, or None if the network has no such branch."""
    return None if predictions.quality is None else predictions.quality.flatten().index_select(0, place)


def by_column(predictions: Predictions, lengths: Int64[Tensor, "G"]) -> Predictions:
    """The same predictions, laid out so that taking from them many times copies no more than is taken.

    Logits that are a view of a feature map (B, C, …) are put in the order of the priors once. Boxes are laid
    out column by column where more are taken than there are: `take_boxes` would turn them all at every call.

    Args:
        lengths: pairs that each ground truth may bring.
    """
    boxes, logits = predictions.boxes, predictions.logits.contiguous()
    if boxes is not None and int(lengths.sum()) >= boxes.shape[:2].numel():
        boxes = boxes.flatten(0, 1).T.contiguous().T.unflatten(0, boxes.shape[:2])
    return replace(predictions, logits=logits, boxes=boxes)
