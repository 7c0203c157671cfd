"""The weights of `golden/models`: drawn from the place, kind and shape of each entry."""

import numpy as np
import torch
from torch import Tensor

FAN_FACTORS = {
    "conv": 1.7,
    "conv_res": 0.08,
    "conv_lin": 1.0,
    "conv_off": 0.1,
    "conv_pred": 0.02,
}


def drawn(index: int, kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Entry number `index` of the recipe."""
    random = np.random.RandomState(seed * 100003 + index)
    if kind in FAN_FACTORS:
        values = random.standard_normal(shape) * np.sqrt(FAN_FACTORS[kind] / np.prod(shape[1:]))
    elif kind in ("norm", "var"):
        values = random.uniform(0.5, 1.5, shape)
    elif kind in ("bias", "mean"):
        values = random.standard_normal(shape) * 0.1
    elif kind == "scale":
        values = random.uniform(0.8, 1.2, shape)
    elif kind == "count":
        return torch.zeros(shape, dtype=torch.int64)
    else:
        raise ValueError(f"entry {index}: the recipe knows no kind {kind!r}")
    return torch.as_tensor(values, dtype=torch.float32).reshape(shape)
