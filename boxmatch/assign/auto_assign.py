"""AutoAssign: the weights of the priors inside a box are learned with the network."""

from collections.abc import Mapping
from typing import ClassVar, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..boxes import pair_giou, take_boxes
from ..losses.soft_pairs import without_graph_of_many
from ..priors import Priors
from ..segments import segment_max, segment_min, segment_sum, segment_topk
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .best_overlap import best_overlap
from .center_prior import cells_from_center
from .joint_score import joint_score
from .negative_weight import LAST_BOX_DECIDES, NegativeConflict, settle_same_class
from .story import Story
from .take import by_column, class_logits, places, predicted_boxes, quality_logits

_EPS = 1e-12  # of the published code


class AutoAssign(Assigner):
    """Inside the box → joint confidence · learned centre prior → all, with two weights → may learn several.

    With P = class · objectness · exp(-beta (1 - GIoU)) and w a Gaussian of the point's distance from the
    centre of the box, in cells, with mean and deviation learned per class, the positive weight of a pair is
    exp(sharpness P) w, divided by its sum over the pairs of its box. Its negative weight is 1 - f: f grows
    with 1 / (1 - IoU), the highest IoU of the prediction with any box of the picture, and runs from 0 to 1
    over the pairs of each box.

    The assignment lists every pair whose prior lies inside a box. `weight` is the positive weight and `score`
    is w: both carry gradients to the predictions and to this module's parameters, `AutoAssignLoss` needs
    them. `neg_weight` is a constant, and the same for all pairs of one prior with boxes of one class.

    The published points lie in the corners of their cells: `PointGrid(strides, center=0.0)`.

    Args:
        num_classes: number of class logits.
        beta: weight of the box loss within the joint confidence.
        sharpness: how much a confident prior gains over the others of its box.
        force_topk: a box without a point inside uses this many points of highest centre prior; 0 leaves it
            without. 9 in the published code, where it is switched on.
        neg_conflict: which value holds where several boxes of one class share a prior: "min", "max", or
            "last", that of the last in the annotation, as published.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is unknown or out of range; in the call, predictions without boxes, or a label
            that is no class.

    Source: Zhu et al. 2020 (AutoAssign), eq. 3 to 9; open-mmlab/mmdetection, `autoassign_head.py`.
    """

    uses_predictions: ClassVar[bool] = True
    keeps_graph: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        *,
        beta: float = 5.0,
        sharpness: float = 3.0,
        force_topk: int = 0,
        neg_conflict: NegativeConflict = "min",
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        # Beyond 80 the exponential of a confidence near 1 leaves float32.
        if not (num_classes >= 1 and 0 <= beta < float("inf") and 0 <= sharpness <= 80 and force_topk >= 0):
            raise ValueError(
                "AutoAssign: expected num_classes of 1 or more, beta and force_topk of 0 or more, sharpness "
                f"in [0, 80], got {num_classes=}, {beta=}, {sharpness=}, {force_topk=}"
            )
        if neg_conflict not in get_args(NegativeConflict):
            raise ValueError(
                f"AutoAssign: expected neg_conflict in {get_args(NegativeConflict)}, got {neg_conflict!r}"
            )
        self.num_classes = num_classes
        self.beta = beta
        self.sharpness = sharpness
        self.force_topk = force_topk
        self.neg_conflict: NegativeConflict = neg_conflict
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """The published rule stores the negative weights in the order of the annotation."""
        return LAST_BOX_DECIDES if self.neg_conflict == "last" else {}

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        if len(targets) and int(targets.labels.max()) >= self.num_classes:
            raise ValueError(
                f"AutoAssign: expected labels below num_classes={self.num_classes}, got "
                f"{int(targets.labels.max())}"
            )
        if predictions.boxes is None:
            raise ValueError(
                "AutoAssign compares predicted boxes, got none; pass predictions with decoded boxes (xyxy px)"
            )
        pairs = self._candidates(priors, targets)
        # Once for all pairs: the gradient of each look-up is as large as all logits.
        logit = class_logits(predictions, places(pairs, targets, len(priors)), pairs, targets)
        lengths = torch.bincount(pairs.gt, minlength=len(targets))
        ends = [0, *lengths.cumsum(0).tolist()]
        overlap = best_overlap(predictions.boxes, targets)
        weigh = without_graph_of_many(self._weigh, len(pairs))
        predictions = by_column(predictions, lengths)

        def part(boxes: slice) -> tuple[Tensor, ...]:
            rows = slice(ends[boxes.start], ends[boxes.stop])
            some = Pairs(pairs.gt[rows] - boxes.start, pairs.prior[rows])
            return weigh(priors, targets.select(boxes), some, predictions, logit[rows], overlap)

        weight, prior, neg_weight = in_pieces(lengths, part, cached=True)
        story.candidates(pairs, weight)
        return Assignment(
            pairs=pairs,
            weight=weight,
            score=prior,
            neg_weight=settle_same_class(pairs, neg_weight, targets, len(priors), self.neg_conflict),
            ignored=torch.zeros((targets.batch_size, len(priors)), dtype=torch.bool, device=weight.device),
            targets=targets,
            levels=priors.levels,
        )

    def _weigh(
        self,
        priors: Priors,
        targets: Targets,
        pairs: Pairs,
        predictions: Predictions,
        logit: Float[Tensor, "N"],
        overlap: Float[Tensor, "B P"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positive weight, centre prior and own negative weight of all pairs of some boxes."""
        place = places(pairs, targets, len(priors))
        giou = pair_giou(
            predicted_boxes(predictions, place, "AutoAssign"), take_boxes(targets.boxes, pairs.gt)
        )
        localization = ((giou.double() - 1) * self.beta).exp()
        joint = joint_score(logit, quality_logits(predictions, place), localization)
        prior = (self._distance(priors, targets, pairs) / -2).exp()
        share = (joint * self.sharpness).exp() * prior
        total = segment_sum(share, pairs.gt, len(targets)).clamp(min=_EPS)
        weight = share / total.index_select(0, pairs.gt)
        neg_weight = _negative(overlap.flatten().index_select(0, place), pairs.gt, len(targets))
        return weight.float(), prior.float(), neg_weight

    def _distance(self, priors: Priors, targets: Targets, pairs: Pairs) -> Tensor:
        """Squared distance of each point from where its class expects it, in deviations, (N,) float64."""
        label = targets.labels.index_select(0, pairs.gt)
        offset = cells_from_center(priors, targets, pairs).double()
        mean = self.mean.double().T.index_select(1, label)
        variance = self.sigma.double().square().clamp(min=_EPS).T.index_select(1, label)
        return ((offset - mean).square() / variance).sum(0)

    def _candidates(self, priors: Priors, targets: Targets) -> Pairs:
        """Points inside the boxes; where there is none and a number is forced, those of highest prior."""
        pairs = priors.inside(targets)
        if not self.force_topk:
            return pairs
        starved = (torch.bincount(pairs.gt, minlength=len(targets)) == 0).nonzero().squeeze(1)
        forced = self._forced(priors, targets.select(starved))
        gt = torch.cat((pairs.gt, starved.index_select(0, forced.gt)))
        order = gt.argsort(stable=True)
        return Pairs(gt[order], torch.cat((pairs.prior, forced.prior))[order])

    @torch.no_grad()
    def _forced(self, priors: Priors, targets: Targets) -> Pairs:
        """The `force_topk` points of highest centre prior of each box, equal ones by the lowest prior."""

        def part(piece: slice) -> tuple[Tensor, Tensor]:
            boxes = targets.select(piece)
            everything = torch.arange(len(boxes) * len(priors), device=priors.boxes.device)
            pairs = Pairs(everything // len(priors), everything % len(priors))
            nearness = -self._distance(priors, boxes, pairs)
            pairs = pairs.select(segment_topk(nearness, pairs.gt, len(boxes), self.force_topk))
            return pairs.gt + (piece.start or 0), pairs.prior

        return Pairs(*in_pieces(torch.full_like(targets.labels, len(priors)), part))

    def extra_repr(self) -> str:
        return (
            f"{self.num_classes}, beta={self.beta}, sharpness={self.sharpness}, "
            f"force_topk={self.force_topk}, neg_conflict={self.neg_conflict!r}"
        )


def _negative(overlap: Float[Tensor, "N"], segment: Int64[Tensor, "N"], count: int) -> Float[Tensor, "N"]:
    """1 - f, with f = 1 / (1 - overlap) brought to 0 .. 1 over each box's pairs; 0 where all are equal."""
    raw = (1 - overlap).clamp_(min=_EPS).reciprocal_()
    low = segment_min(raw, segment, count)
    span = segment_max(raw, segment, count).sub_(low).add_(_EPS)
    raw.sub_(low.index_select(0, segment)).add_(_EPS).div_(span.index_select(0, segment))
    return raw.neg_().add_(1)
