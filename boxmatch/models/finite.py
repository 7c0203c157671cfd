"""Which output of a network is not finite, in words."""

import torch

from boxmatch.structures import Level, Predictions


def first_not_finite(predictions: Predictions, levels: tuple[Level, ...]) -> tuple[str, int] | None:
    """Tensor and level, and the number of the image, of the first value that is not finite; or None.

    Args:
        predictions: of a batch.
        levels: of its priors.
    """
    for name, values in (
        ("class logit", predictions.logits),
        ("quality", predictions.quality),
        ("box number", predictions.deltas),
        ("box", predictions.boxes),
    ):
        if values is None or bool(torch.isfinite(values).all()):
            continue
        broken = (~torch.isfinite(values)).reshape(*values.shape[:2], -1).any(2)
        image, prior = broken.nonzero()[0].tolist()
        for number, level in enumerate(levels):
            if prior < len(level):
                return f"{name} of level {number + 1} (stride {level.stride})", image
            prior -= len(level)
    return None
