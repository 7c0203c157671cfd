"""Hungarian matching: the one-to-one assignment of lowest total cost, as DETR trains with."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float32
from torch import Tensor

from ..priors import Priors
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .linear_assignment import least_total_cost, solver
from .query_cost import ClassCost, QueryCost
from .story import Story
from .take import places


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
        self.cost = QueryCost(class_cost, class_weight, box_weight, giou_weight)
        # A saved detector reads its assigner's arguments off these.
        self.class_cost, self.class_weight = class_cost, class_weight
        self.box_weight, self.giou_weight = box_weight, giou_weight
        if repeats < 1 or groups < 1:
            raise ValueError(f"expected repeats and groups of 1 or more, got {repeats=}, {groups=}")
        if image_size is not None and not all(0 < side < torch.inf for side in image_size):
            raise ValueError(f"expected image_size (height, width) above 0, got {image_size}")
        self.repeats = repeats
        self.groups = groups
        self.image_size = image_size
        # Say so now if it is missing, not at the first batch.
        solver()

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
        self._check_predictions(priors, targets, predictions)
        size = self._picture_size(priors)
        empty = torch.zeros(0, dtype=torch.int64, device=targets.boxes.device)
        gts, columns, told, first = [empty], [empty], [empty.float()], 0
        # The solver takes one picture's matrix at a time.
        for image, count in enumerate(targets.per_image().tolist()):
            cost = self._picture_cost(predictions, targets, image, slice(first, first + count), size)
            gt, prior = least_total_cost(cost, repeats=self.repeats, groups=self.groups)
            gts.append(gt + first)
            columns.append(prior)
            if story.active:
                told.append(cost.flatten())
            first += count
        pairs = Pairs(torch.cat(gts), torch.cat(columns))
        if story.active:
            _tell(story, pairs, targets, len(priors), torch.cat(told))
        return Assignment.hard(pairs, targets, len(priors), levels=priors.levels)

    def _picture_cost(
        self,
        predictions: Predictions,
        targets: Targets,
        image: int,
        rows: slice,
        size: tuple[float, float],
    ) -> Float32[Tensor, "g P"]:
        assert predictions.boxes is not None
        logits, boxes = predictions.logits[image], predictions.boxes[image]
        return self.cost(logits, boxes, targets.labels[rows], targets.boxes[rows], size)

    def _check_predictions(self, priors: Priors, targets: Targets, predictions: Predictions) -> None:
        if predictions.boxes is None:
            raise ValueError(
                "Hungarian compares predicted boxes, got none; pass predictions with decoded boxes (xyxy px)"
            )
        classes = predictions.logits.shape[2]
        if len(targets) and int(targets.labels.max()) >= classes:
            raise ValueError(
                f"expected labels below {classes}, the number of classes of the predictions, got "
                f"{int(targets.labels.max())}; give the detector as many classes as the data has"
            )
        if len(priors) % self.groups:
            raise ValueError(
                f"Hungarian: expected a number of priors that {self.groups} groups divide, got {len(priors)}"
            )

    def _picture_size(self, priors: Priors) -> tuple[float, float]:
        """Height and width that L1 is measured in."""
        if self.image_size is not None:
            return self.image_size
        if not priors.levels:
            raise ValueError(
                "Hungarian: expected priors on a grid, which tells the size of the picture, got free boxes; "
                "give image_size=(height, width), or (1, 1) if boxes are shares of the picture"
            )
        height = max(level.height * level.stride for level in priors.levels)
        width = max(level.width * level.stride for level in priors.levels)
        return float(height), float(width)

    def extra_repr(self) -> str:
        cost = self.cost
        return (
            f"class_cost={cost.class_cost!r}, class_weight={cost.class_weight}, "
            f"box_weight={cost.box_weight}, giou_weight={cost.giou_weight}, repeats={self.repeats}, "
            f"groups={self.groups}, image_size={self.image_size}"
        )


def _tell(story: Story, pairs: Pairs, targets: Targets, count: int, cost: Float32[Tensor, "N"]) -> None:
    """Every pair was looked at: a prior that is free was not needed, the others went to another box."""
    gt = torch.arange(len(targets), device=cost.device).repeat_interleave(count)
    everything = Pairs(gt, torch.arange(count, device=cost.device).repeat(len(targets)))
    taken = torch.zeros(targets.batch_size * count, dtype=torch.bool, device=cost.device)
    taken[places(pairs, targets, count)] = True
    story.candidates(everything, -cost)
    story.keep(taken[places(everything, targets, count)], otherwise="not_topk")
