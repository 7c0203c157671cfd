"""The frame of the three grid methods: candidates with an IoU, a threshold, one owner per prior."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..priors import Priors
from ..structures import Assignment, Pairs, Targets
from .base import Assigner
from .pick import owner_mask, random_score

UNION_EPS = 1e-6
"""Added to the union as a share of the picture's area, as in the reference (core/loss.py of simple-yolo-pytorch)."""


class GridAssigner(Assigner):
    """Base of the grid methods.

    Args:
        match_iou_thres: IoU that a candidate must reach, in [0, 1); 1/16 accepts a factor of 4 in both sides.
        filter_by_max_iou: a contested prior goes to the box of greatest IoU, equal IoUs to the lowest row; if False to
            any of the rivals with equal chance.
        seed: of that choice; the same content gives the same choice on every device.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        match_iou_thres: float = 0.0625,
        filter_by_max_iou: bool = True,
        seed: int = 0,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not 0 <= match_iou_thres < 1:
            raise ValueError(f"expected match_iou_thres in [0, 1), got {match_iou_thres}")
        self.match_iou_thres = match_iou_thres
        self.filter_by_max_iou = filter_by_max_iou
        self.seed = seed

    def resolve(self, candidates: Pairs, iou: Float[Tensor, "N"], priors: Priors, targets: Targets) -> Assignment:
        """Leave every contested prior to one owner."""
        score = iou if self.filter_by_max_iou else random_score(candidates, targets, self.seed)
        owned = owner_mask(candidates, score, targets, len(priors.boxes))
        return Assignment.hard(
            candidates.select(owned), targets, len(priors.boxes), levels=priors.levels, candidates=candidates
        )

    def extra_repr(self) -> str:
        return (
            f"match_iou_thres={self.match_iou_thres}, filter_by_max_iou={self.filter_by_max_iou}, seed={self.seed}, "
            f"ignore_threshold={self.ignore_threshold}"
        )


def union_eps(priors: Priors) -> Float[Tensor, "L"]:
    """The reference's 1e-6 of normalised area in square pixels, per level; the picture is the grid times the stride."""
    area = [level.height * level.width * level.stride**2 for level in priors.levels]
    return UNION_EPS * torch.tensor(area, dtype=torch.float32, device=priors.boxes.device)
