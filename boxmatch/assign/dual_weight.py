"""Dual weighting: every prior inside a box learns it, as strongly as its prediction deserves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes import pair_iou_and_giou, take_boxes
from ..priors import Priors
from ..reproducible import power
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .crowd_limit import beyond_limit, without_background_in
from .independent_classes import refuse_softmax
from .joint_score import joint_score
from .negative_weight import (
    LAST_BOX_DECIDES,
    DegenerateBag,
    NegativeConflict,
    bag_curve,
    fixed_curve,
    settle_same_class,
)
from .piecewise import piecewise
from .positive_weight import Bag, TopkWeight, bag_membership, share_of_box
from .story import Story
from .take import by_column, class_logits, places, predicted_boxes, quality_logits

LocalizationScore = Literal["giou", "iou"]
NegativeCurve = Literal["bag_minmax", "fixed"]


class DualWeight(Assigner):
    """Inside the box → class · objectness · localisation → all, with two weights → a prior may learn several.

    With t the joint score of a pair and q its centre prior, its positive weight is
    exp(mu_num t) t q / Σ exp(mu_den t) t q, the sum over the pairs of its box. Its negative weight says how
    strongly the prior is still pushed down as background of the box's class: 1 where the prediction overlaps
    the box by less than `iou_low`, 0 for the best.

    The assignment lists every pair whose prior lies inside a box: `weight` is the positive weight; `score`,
    the class target of the positive term, is 1; `neg_weight` is the same for all pairs of one prior with
    boxes of one class, so that a loss may store them in any order. Elsewhere the negative weight is 1.

    Args:
        beta: exponent of the localisation score.
        mu_num: exponent of the joint score in the numerator.
        mu_den: exponent of the joint score in the denominator. Less than `mu_num` on purpose: the weights of
            a box then sum to more than 1, and to more the better its predictions get, which holds the balance
            with the negative term.
        loc_score: "giou": exp(-beta · (1 - GIoU)); "iou": IoU^beta.
        bag: which priors inside a box get a positive weight. "soft_center": all, by a Gaussian of their
            distance from its centre; "hard_center": those where it is above 0.3, equally; "topk": those
            `topk` of all levels where it is highest.
        sigma: of the Gaussian, in cells of the prior's level.
        topk: size of the bag "topk".
        topk_weight: q of the bag "topk": "prior", the Gaussian; "one", 1.
        neg_curve: "bag_minmax": relative to the best and worst overlap of the box's own pairs; "fixed": falls
            from 1 at `iou_low` to 0 at `iou_high`.
        iou_low: overlap below which the negative weight is 1.
        iou_high: overlap above which the curve "fixed" is 0.
        neg_exponent: exponent of the overlap in either curve.
        neg_conflict: which value holds where several boxes of one class share a prior: "min", "max", or
            "last", that of the last in the annotation.
        degenerate_bag: the curve "bag_minmax" where all pairs of a box overlap it equally, or there is but
            one: "zero", as for every best pair; "official": 1.
        max_gt_per_image: of a picture with more boxes the largest are assigned. Where the others lie is no
            background, and a warning is given. None assigns all; memory grows with the pairs, not with boxes
            times priors.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is unknown or out of range; in the call, predictions without boxes, a label
            that is no class of the predictions, or class logits that come from a softmax.

    Source: Li et al. 2022 (DW); strongwolf/DW, `dw_head.py`. Where they differ: `official`, `paper`.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        beta: float = 5.0,
        mu_num: float = 5.0,
        mu_den: float = 3.0,
        loc_score: LocalizationScore = "giou",
        bag: Bag = "soft_center",
        sigma: float = 1.11,
        topk: int = 9,
        topk_weight: TopkWeight = "prior",
        neg_curve: NegativeCurve = "bag_minmax",
        iou_low: float = 0.5,
        iou_high: float = 0.95,
        neg_exponent: float = 2.0,
        neg_conflict: NegativeConflict = "min",
        degenerate_bag: DegenerateBag = "zero",
        max_gt_per_image: int | None = None,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        for name, value, known in (
            ("loc_score", loc_score, get_args(LocalizationScore)),
            ("bag", bag, get_args(Bag)),
            ("topk_weight", topk_weight, get_args(TopkWeight)),
            ("neg_curve", neg_curve, get_args(NegativeCurve)),
            ("neg_conflict", neg_conflict, get_args(NegativeConflict)),
            ("degenerate_bag", degenerate_bag, get_args(DegenerateBag)),
        ):
            if value not in known:
                raise ValueError(f"DualWeight: expected {name} in {known}, got {value!r}")
        _check_numbers(beta, mu_num, mu_den, sigma, topk, neg_exponent, iou_low, iou_high, max_gt_per_image)
        self.max_gt_per_image = max_gt_per_image
        self.beta = beta
        self.mu_num = mu_num
        self.mu_den = mu_den
        self.loc_score: LocalizationScore = loc_score
        self.bag: Bag = bag
        self.sigma = sigma
        self.topk = topk
        self.topk_weight: TopkWeight = topk_weight
        self.neg_curve: NegativeCurve = neg_curve
        self.iou_low = iou_low
        self.iou_high = iou_high
        self.neg_exponent = neg_exponent
        self.neg_conflict: NegativeConflict = neg_conflict
        self.degenerate_bag: DegenerateBag = degenerate_bag

    @classmethod
    def official(cls, **options: Any) -> "DualWeight":
        """The published code, on the CPU: the last box of a class decides, a single prior is pushed down."""
        return cls(**{"neg_conflict": "last", "degenerate_bag": "official", **options})

    @classmethod
    def paper(cls, **options: Any) -> "DualWeight":
        """The formulas of the paper: IoU^beta, equal exponents, a fixed curve for the negative weight."""
        return cls(**{"loc_score": "iou", "mu_den": 5.0, "neg_curve": "fixed", **options})

    @property
    def conformance_exceptions(self) -> Mapping[str, str]:
        """The published rule stores the negative weights in the order of the annotation."""
        return LAST_BOX_DECIDES if self.neg_conflict == "last" else {}

    def forward(
        self,
        priors: Priors,
        targets: Targets,
        predictions: Predictions | None = None,
        *,
        explain: bool = False,
    ) -> Assignment:
        """As for every assigner; boxes beyond `max_gt_per_image` count as ignored in the result's targets."""
        if self.max_gt_per_image is None:
            return super().forward(priors, targets, predictions, explain=explain)
        left_out = beyond_limit(targets, self.max_gt_per_image, "DualWeight")
        fewer = replace(targets, ignore=targets.ignore | left_out)
        assignment = super().forward(priors, fewer, predictions, explain=explain)
        return without_background_in(left_out, assignment, priors, targets)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        refuse_softmax(predictions.logits, "DualWeight")
        lengths = priors.count_inside(targets)
        predictions = by_column(predictions, lengths)

        def weigh(part: Targets) -> tuple[Pairs, tuple[Tensor, ...]]:
            return self._weigh(priors, part, predictions)

        pairs, (weight, neg_weight) = piecewise(targets, lengths, weigh, story)
        story.candidates(pairs, weight)
        return Assignment(
            pairs=pairs,
            weight=weight,
            score=torch.ones_like(weight),
            neg_weight=settle_same_class(pairs, neg_weight, targets, len(priors), self.neg_conflict),
            ignored=torch.zeros((targets.batch_size, len(priors)), dtype=torch.bool, device=weight.device),
            targets=targets,
            levels=priors.levels,
        )

    def _weigh(
        self, priors: Priors, targets: Targets, predictions: Predictions
    ) -> tuple[Pairs, tuple[Tensor, Tensor]]:
        """All pairs inside the boxes with both weights, the negative one before conflicts are settled."""
        pairs = priors.inside(targets)
        place = places(pairs, targets, len(priors))
        predicted = predicted_boxes(predictions, place, "DualWeight")
        iou, giou = pair_iou_and_giou(predicted, take_boxes(targets.boxes, pairs.gt))
        localization = (
            (giou.double() - 1).mul_(self.beta).exp_() if self.loc_score == "giou" else power(iou, self.beta)
        )
        logit = class_logits(predictions, place, pairs, targets)
        joint = joint_score(logit, quality_logits(predictions, place), localization)
        member = self.membership(priors, targets, pairs)
        positive = share_of_box(joint, member, pairs.gt, len(targets), mu_num=self.mu_num, mu_den=self.mu_den)
        if self.neg_curve == "fixed":
            curve = fixed_curve(iou, low=self.iou_low, high=self.iou_high, exponent=self.neg_exponent)
        else:
            curve = bag_curve(
                iou,
                pairs.gt,
                len(targets),
                low=self.iou_low,
                exponent=self.neg_exponent,
                degenerate=self.degenerate_bag,
            )
        return pairs, (positive, curve)

    def membership(self, priors: Priors, targets: Targets, pairs: Pairs) -> Float[Tensor, "N"]:
        """q of each pair: how far it belongs to the bag of its box, in [0, 1].

        Args:
            pairs: all priors inside the boxes, ordered by ground truth.
        """
        return bag_membership(
            priors,
            targets,
            pairs,
            self.bag,
            sigma=self.sigma,
            topk=self.topk,
            topk_weight=self.topk_weight,
        )

    def extra_repr(self) -> str:
        names = (
            "beta mu_num mu_den loc_score bag sigma topk topk_weight neg_curve iou_low iou_high neg_exponent "
            "neg_conflict degenerate_bag max_gt_per_image"
        )
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names.split())


def _check_numbers(
    beta: float,
    mu_num: float,
    mu_den: float,
    sigma: float,
    topk: int,
    neg_exponent: float,
    iou_low: float,
    iou_high: float,
    max_gt_per_image: int | None,
) -> None:
    """Raise ValueError for a number out of range."""
    # Beyond 80 the exponential of a score near 1 leaves float32.
    if not (0 <= beta < float("inf") and 0 <= mu_num <= 80 and 0 <= mu_den <= 80):
        raise ValueError(
            "DualWeight: expected beta of 0 or more, mu_num and mu_den in [0, 80], got "
            f"{beta=}, {mu_num=}, {mu_den=}"
        )
    if not (0 < sigma < float("inf") and topk >= 1 and 0 < neg_exponent < float("inf")):
        raise ValueError(
            "DualWeight: expected sigma and neg_exponent above 0 and topk of 1 or more, got "
            f"{sigma=}, {neg_exponent=}, {topk=}"
        )
    if not 0 < iou_low < iou_high <= 1:
        raise ValueError(f"DualWeight: expected 0 < iou_low < iou_high <= 1, got {iou_low=}, {iou_high=}")
    if max_gt_per_image is not None and max_gt_per_image < 1:
        raise ValueError(
            f"DualWeight: expected max_gt_per_image of 1 or more, or None, got {max_gt_per_image}"
        )
