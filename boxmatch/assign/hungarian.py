"""Hungarian matching: the one-to-one assignment of lowest total cost, as DETR trains with."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import softplus

from ..boxes import pair_giou, xyxy_to_cxcywh
from ..losses.box_similarity import MAX_COORDINATE
from ..priors import Priors
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .story import Story

ClassCost = Literal["focal", "softmax"]

FOCAL_ALPHA = 0.25
"""Weight of the positive term of the focal cost, the negative has 1 - alpha; Deformable DETR."""

MAX_LOGIT = 1e4
"""Logits beyond this are held there: the cost stays finite, and no order of costs changes within it."""


class Hungarian(Assigner):
    """All priors → minus the cost of class, place and overlap → one prior per box → least total cost.

    The cost of a pair is class_weight · class + box_weight · L1 + giou_weight · (-GIoU). The class term is
    minus the probability of the box's class ("softmax"), or what the focal loss would lose less as a positive
    than as a negative ("focal"). L1 is the sum of the differences of centre, width and height, as shares of
    the picture's. Each box gets one prior (query), and no prior two boxes; where there are more boxes than
    priors, those that cost least. Of assignments of equal total cost scipy's solver finds one, the same for
    the same costs; a box that is there twice gets two priors.

    The solver runs on the CPU, one picture after the other. Time and memory grow with boxes × priors: meant
    for hundreds of queries.

    Args:
        class_cost: "softmax" for heads trained with cross entropy (whose last class is "no object"), "focal"
            for sigmoid heads.
        class_weight: of the class term; 1 in DETR, 2 in its sigmoid successors.
        box_weight: of the L1 distance.
        giou_weight: of the overlap.
        repeats: priors of each box (one-to-many: H-DETR), at most as many as there are priors for all.
        groups: equal runs of priors that are matched each by itself and joined (Group DETR).
        image_size: (height, width) in pixels that L1 is measured in. None takes the grid the priors lie on;
            queries, which lie on none, need it. For pictures of different sizes give (1, 1), and boxes and
            predictions as shares of each picture's size: GIoU is the same in both.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ImportError: scipy is not installed.
        ValueError: an argument is out of range; in the call, predictions without boxes, a label that is no
            class, priors that do not divide into `groups`, or priors on no grid without `image_size`.

    Source: Carion et al. 2020 (DETR), eq. 1; Zhu et al. 2021 (Deformable DETR) for the focal cost; Jia et al.
    2023 (H-DETR) for `repeats`; Chen et al. 2023 (Group DETR) for `groups`.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        class_cost: ClassCost = "focal",
        class_weight: float = 2.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        repeats: int = 1,
        groups: int = 1,
        image_size: tuple[float, float] | None = None,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if class_cost not in get_args(ClassCost):
            raise ValueError(f"expected class_cost in {get_args(ClassCost)}, got {class_cost!r}")
        weights = (class_weight, box_weight, giou_weight)
        if not (min(weights) >= 0 and 0 < sum(weights) < torch.inf):
            raise ValueError(
                f"expected finite weights of 0 or more, one above 0, got {class_weight=}, {box_weight=}, "
                f"{giou_weight=}"
            )
        if repeats < 1 or groups < 1:
            raise ValueError(f"expected repeats and groups of 1 or more, got {repeats=}, {groups=}")
        if image_size is not None and not all(0 < side < torch.inf for side in image_size):
            raise ValueError(f"expected image_size (height, width) above 0, got {image_size}")
        self.class_cost: ClassCost = class_cost
        self.class_weight, self.box_weight, self.giou_weight = weights
        self.repeats = repeats
        self.groups = groups
        self.image_size = image_size
        _solver()

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        exceptions = {"duplicates": "a box that is there twice gets two priors"}
        if self.groups > 1:
            exceptions["few_priors"] = f"it refuses priors that do not divide into {self.groups} groups"
            exceptions["turned_picture"] = "a group is a run of priors, which other ones belong to then"
        return exceptions

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        if len(priors) % self.groups:
            raise ValueError(
                f"Hungarian: expected a number of priors that {self.groups} groups divide, got {len(priors)}"
            )
        size = self._size(priors)
        matched, told, first = [], [], 0
        # The solver takes one picture's matrix at a time.
        for image, count in enumerate(targets.per_image().tolist()):
            rows = slice(first, first + count)
            cost = self._cost(predictions, targets, image, rows, size)
            gt, prior = self._solve(cost)
            matched.append(Pairs(gt + first, prior))
            told.append(cost.flatten() if story.active else cost.new_zeros(0))
            first += count
        empty = torch.zeros(0, dtype=torch.int64, device=targets.boxes.device)
        pairs = Pairs(
            *(torch.cat((empty, *(getattr(part, name) for part in matched))) for name in ("gt", "prior"))
        )
        if story.active:
            self._tell(story, pairs, targets, len(priors), torch.cat((empty.float(), *told)))
        return Assignment.hard(pairs, targets, len(priors), levels=priors.levels)

    def _cost(
        self, predictions: Predictions, targets: Targets, image: int, rows: slice, size: Float[Tensor, "4"]
    ) -> Float32[Tensor, "g P"]:
        """Cost of every pair of one picture."""
        if predictions.boxes is None:
            raise ValueError(
                "Hungarian compares predicted boxes, got none; pass predictions with decoded boxes (xyxy px)"
            )
        logits = predictions.logits[image]
        boxes, labels = targets.boxes[rows], targets.labels[rows]
        if len(labels) and int(labels.max()) >= logits.shape[1]:
            raise ValueError(
                f"expected labels below {logits.shape[1]}, the number of classes of the predictions, got "
                f"{int(labels.max())}; give the detector as many classes as the data has"
            )
        log_total = logits.double().logsumexp(1) if self.class_cost == "softmax" else None
        predicted = predictions.boxes[image].clamp(-MAX_COORDINATE, MAX_COORDINATE)
        predicted_cxcywh = xyxy_to_cxcywh(predicted) / size

        def part(piece: slice) -> tuple[Tensor, ...]:
            cost = self.class_weight * _class_cost(logits, labels[piece], log_total)
            distance = (xyxy_to_cxcywh(boxes[piece])[:, None] / size - predicted_cxcywh).abs_()
            x, y, w, h = distance.unbind(2)
            cost += self.box_weight * (x + y + w + h)
            cost -= self.giou_weight * pair_giou(*torch.broadcast_tensors(boxes[piece][:, None], predicted))
            return (cost,)

        (cost,) = in_pieces(torch.full_like(labels, len(predicted)), part)
        return cost

    def _solve(self, cost: Float32[Tensor, "g P"]) -> tuple[Int64[Tensor, "M"], Int64[Tensor, "M"]]:
        """Box and prior of each match, ordered."""
        count, per_group = len(cost), cost.shape[1] // self.groups
        repeats = max(1, min(self.repeats, per_group // max(count, 1)))
        matrix = cost.cpu().double().repeat_interleave(repeats, 0).numpy()
        found = []
        for start in range(0, per_group * self.groups, max(per_group, 1)):
            row, column = _solver()(matrix[:, start : start + per_group])
            found.append(torch.stack((torch.from_numpy(row) // repeats, torch.from_numpy(column) + start)))
        gt, prior = torch.cat([torch.zeros(2, 0, dtype=torch.int64), *found], 1)
        order = (gt * max(cost.shape[1], 1) + prior).argsort()
        return gt[order].to(cost.device), prior[order].to(cost.device)

    def _tell(
        self, story: Story, pairs: Pairs, targets: Targets, count: int, cost: Float32[Tensor, "N"]
    ) -> None:
        """Every pair was looked at; a free prior was not needed, another box has the rest."""
        gt = torch.arange(len(targets), device=cost.device).repeat_interleave(count)
        prior = torch.arange(count, device=cost.device).repeat(len(targets))
        taken = torch.zeros(targets.batch_size * count, dtype=torch.bool, device=cost.device)
        taken[targets.image[pairs.gt] * count + pairs.prior] = True
        story.candidates(Pairs(gt, prior), -cost)
        story.keep(taken[targets.image[gt] * count + prior], otherwise="not_topk")

    def _size(self, priors: Priors) -> Float[Tensor, "4"]:
        """What centre, width and height are divided by."""
        size = self.image_size
        if size is None:
            if not priors.levels:
                raise ValueError(
                    "Hungarian: expected priors on a grid, which tells the size of the picture, got free "
                    "boxes; give image_size=(height, width), or (1, 1) if boxes are shares of the picture"
                )
            size = (
                max(level.height * level.stride for level in priors.levels),
                max(level.width * level.stride for level in priors.levels),
            )
        height, width = size
        return torch.tensor([width, height, width, height], dtype=torch.float32, device=priors.boxes.device)

    def extra_repr(self) -> str:
        return (
            f"class_cost={self.class_cost!r}, class_weight={self.class_weight}, "
            f"box_weight={self.box_weight}, giou_weight={self.giou_weight}, repeats={self.repeats}, "
            f"groups={self.groups}, image_size={self.image_size}"
        )


def _class_cost(
    logits: Float32[Tensor, "P C"], labels: Int64[Tensor, "g"], log_total: Float64[Tensor, "P"] | None
) -> Float32[Tensor, "g P"]:
    """Cost of the class of each box at each prior; from `log_total`, of all classes, if there is one."""
    # In float64 and rounded: float32's exp and log depend on the place in the tensor.
    logit = logits.T.index_select(0, labels).double()
    if log_total is not None:
        return -(logit - log_total).exp().float()
    logit.clamp_(-MAX_LOGIT, MAX_LOGIT)
    probability = logit.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability).square() * softplus(-logit)
    negative = (1 - FOCAL_ALPHA) * probability.square() * softplus(logit)
    return (positive - negative).float()


def _solver() -> Callable[..., Any]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            "Hungarian needs scipy, which is not installed: pip install 'boxmatch[hungarian]'"
        ) from error
    return linear_sum_assignment
