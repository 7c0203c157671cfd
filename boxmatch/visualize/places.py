"""Where the marker of a prior is drawn."""

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from boxmatch.priors import Priors

# The anchors of a cell share its centre: they are drawn side by side, within this share of the cell.
_SPREAD = 0.66


def marker_places(
    priors: Priors, prior: Int64[Tensor, "N"]
) -> tuple[Int64[np.ndarray, "N"], Float[np.ndarray, "N 2"]]:
    """Anchor of each prior (0 on no grid), and the (x, y) in pixels at which its marker stands."""
    prior = prior.cpu()
    centers = priors.centers.cpu()[prior].numpy().copy()
    if not priors.levels:
        return np.zeros(len(prior), dtype=np.int64), centers
    lengths = np.array([len(level) for level in priors.levels])
    level = priors.level.cpu()[prior].numpy()
    count = np.array([level.anchors for level in priors.levels])[level]
    anchor = (prior.numpy() - (lengths.cumsum() - lengths)[level]) % count
    stride = priors.stride.cpu()[prior].numpy()
    centers[:, 0] += (anchor - (count - 1) / 2) * stride * _SPREAD / count
    return anchor, centers
