"""The frame of the three grid methods: candidates with an IoU, a threshold, one owner per prior."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from ..priors import Priors
from ..spatial.index import GridIndex
from ..structures import Assignment, Pairs, Targets
from .base import Assigner
from .pick import owners, random_score
from .story import Story

UNION_EPS = 1e-6
"""Share of the picture's area that is added to the union; core/loss.py of zh320/simple-yolo-pytorch."""


class GridAssigner(Assigner):
    """Base of the grid methods.

    Args:
        match_iou_thres: IoU that a candidate must reach, in [0, 1); 1/16 accepts a factor of 4 in both sides.
        filter_by_max_iou: a contested prior goes to the box of greatest IoU, equal IoUs to the lowest row; if
            False to any of the rivals with equal chance.
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

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        if self.filter_by_max_iou:
            return {}
        return {"turned_picture": "it draws from the coordinates, which x and y then share otherwise"}

    def resolve(
        self, candidates: Pairs, iou: Float[Tensor, "N"], priors: Priors, targets: Targets, story: Story
    ) -> Assignment:
        """Leave every contested prior to one owner."""
        score = iou if self.filter_by_max_iou else random_score(candidates, targets, self.seed)
        owned = owners(candidates, score, targets, len(priors))
        pairs = Pairs(candidates.gt.index_select(0, owned), candidates.prior.index_select(0, owned))
        return Assignment.hard(pairs, targets, len(priors), levels=priors.levels, candidates=candidates)

    def extra_repr(self) -> str:
        return (
            f"match_iou_thres={self.match_iou_thres}, filter_by_max_iou={self.filter_by_max_iou}, "
            f"seed={self.seed}, ignore_threshold={self.ignore_threshold}"
        )


def grid_index(priors: Priors) -> GridIndex:
    """The tables of the grid the priors lie on.

    Raises:
        ValueError: the priors lie on no grid.
    """
    if priors.index is None:
        raise ValueError(
            "expected priors on a grid, got free boxes, which have no cells; make them with AnchorGrid"
        )
    return priors.index


def union_eps(priors: Priors) -> Float[Tensor, "L"]:
    """`UNION_EPS` in square pixels for each level; the picture is the level's grid times its stride."""
    index = grid_index(priors)
    return UNION_EPS * (index.height * index.width * index.stride**2)
