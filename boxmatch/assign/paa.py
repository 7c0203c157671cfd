"""PAA: a mixture of two Gaussians tells the good candidates of a box from the bad."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from ..boxes import take_boxes
from ..delta_coder import DeltaCoder
from ..losses.functional import bce, check_gamma, sigmoid_focal
from ..losses.giou import giou_loss
from ..priors import Priors
from ..segments import segment_lengths, segment_topk
from ..spatial.pieces import in_pieces
from ..structures import Assignment, Pairs, Predictions, Targets
from .base import Assigner
from .boundary import Boundary, split_by_mixture
from .pick import owners
from .story import Story
from .take import class_logits, places, predicted_boxes

ClassCost = Literal["focal", "bce"]
BoxCost = Literal["giou", "l1"]

# Beyond it all costs are equal; the published code gives it to priors that match no box. It keeps the mixture
# finite where a diverging network makes infinite losses.
MAX_COST = 1e8

LOGIT_BUDGET = 2**18
"""Logits worked on at once: 2 MB in float64, what a cache holds. Results do not depend on it."""


class PAA(Assigner):
    """IoU with the prior's best box → -(class + box loss) → best per level, mixture boundary → disjoint.

    A prior is a candidate of the one box it overlaps most, from IoU `positive` on; the best priors of a box
    that none overlaps so much are candidates too, of their own best box. The cost of a pair is what the
    network would pay for it: the class loss over all classes plus the box loss. A box keeps the `topk` lowest
    of each level; two Gaussians are fitted to these, and the candidates up to the peak of the better one are
    positive. A box with one candidate keeps it; a box may have none.

    With G+ the candidates that the better Gaussian explains at least as well as the other, and k the one of
    them where the density of the mixture is greatest (no G+: all are positive), `boundary` means, by cost

    * "c" (the published code): up to k positive, the rest negative;
    * "a": G+ positive, the rest negative;
    * "b": up to k positive, from the other Gaussian's densest candidate on negative, between them ignored;
    * "d": up to k positive, the rest of G+ ignored, the others negative.

    The variant for proposal networks (PAA on the RPN of Faster R-CNN) is
    `PAA(class_cost="bce", box_cost="l1")`: one class, so all labels are 0; the anchors of a cell are pooled.

    Args:
        topk: candidates that a box keeps on each level.
        positive: IoU from which on a prior is a candidate.
        boundary: which candidates the mixture makes positive, negative and ignored.
        class_cost: "focal" loss or plain cross entropy ("bce"), summed over all classes.
        box_cost: "giou" of the decoded boxes, or "l1" over the four deltas.
        inclusive_pixels: whether the GIoU takes a pixel off the right and lower edges (see `giou_loss`): True
            with boxes (x1, y1, x2 + 1, y2 + 1) and priors of `AnchorGrid(..., shift=0.5)` to reproduce the
            published code.
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss.
        coder: makes the deltas that "l1" compares the network's with; those of an RPN if not given.
        ignore_threshold: share of a prior's area inside an ignore region from which on it takes no part.

    Raises:
        ValueError: an argument is out of range; in the call, predictions without boxes for "giou", or a label
            that is no class of the predictions.

    Source: Kim & Lee 2020 (PAA), section 3; kkhoot/PAA, which adds the losses without a weight.
    """

    uses_predictions: ClassVar[bool] = True

    def __init__(
        self,
        *,
        topk: int = 9,
        positive: float = 0.1,
        boundary: Boundary = "c",
        class_cost: ClassCost = "focal",
        box_cost: BoxCost = "giou",
        inclusive_pixels: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        coder: DeltaCoder | None = None,
        ignore_threshold: float = 0.5,
    ) -> None:
        super().__init__(ignore_threshold=ignore_threshold)
        if not (topk >= 1 and 0 < positive <= 1 and 0 <= alpha <= 1):
            raise ValueError(
                "expected topk of 1 or more, positive in (0, 1] and alpha in [0, 1], got "
                f"{topk=}, {positive=}, {alpha=}"
            )
        check_gamma(gamma)
        for name, value, known in (
            ("boundary", boundary, Boundary),
            ("class_cost", class_cost, ClassCost),
            ("box_cost", box_cost, BoxCost),
        ):
            if value not in get_args(known):
                raise ValueError(f"expected {name} in {get_args(known)}, got {value!r}")
        self.topk, self.positive = topk, positive
        self.boundary: Boundary = boundary
        self.class_cost: ClassCost = class_cost
        self.box_cost: BoxCost = box_cost
        self.inclusive_pixels = inclusive_pixels
        self.alpha, self.gamma = alpha, gamma
        self.coder = DeltaCoder((1.0, 1.0, 1.0, 1.0)) if coder is None else coder

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, story: Story
    ) -> Assignment:
        assert predictions is not None
        matched = self._matches(priors, targets)
        lengths = segment_lengths(matched.gt, len(targets))

        def shortlist(piece: slice) -> tuple[Tensor, ...]:
            inside = (matched.gt >= piece.start) & (matched.gt < piece.stop)
            rows = inside.nonzero().squeeze(1)
            kept, cost = self._shortlist(matched.select(rows), priors, targets, predictions)
            return rows.index_select(0, kept), cost

        kept, cost = in_pieces(lengths, shortlist)
        pooled = matched.select(kept)
        split = split_by_mixture(cost, pooled.gt, len(targets), self._most(priors), self.boundary)
        assignment = Assignment.hard(
            pooled.select(split.positive), targets, len(priors), levels=priors.levels, candidates=pooled
        )
        ignored = pooled.select(split.ignored)
        assignment.ignored[targets.image[ignored.gt], ignored.prior] = True
        return assignment

    def _matches(self, priors: Priors, targets: Targets) -> Pairs:
        pairs, iou = priors.overlaps(targets, 0.0)
        owned = owners(pairs, iou, targets, len(priors))
        rescued, best = priors.best_overlaps(targets)
        rescued = rescued.select(best < self.positive)
        place, wanted = places(pairs, targets, len(priors)), places(rescued, targets, len(priors))
        keep = (iou >= self.positive) | torch.isin(place, wanted)
        return pairs.select(owned[keep[owned]])

    def _most(self, priors: Priors) -> int:
        """The most candidates that a box can keep."""
        return sum(min(self.topk, len(level)) for level in priors.levels) or min(self.topk, len(priors))

    def _shortlist(
        self, pairs: Pairs, priors: Priors, targets: Targets, predictions: Predictions
    ) -> tuple[Int64[Tensor, "K"], Float32[Tensor, "K"]]:
        levels = max(len(priors.levels), 1)
        segment = pairs.gt * levels + priors.level.index_select(0, pairs.prior)
        cost = self._own_cost(pairs, priors, targets, predictions)
        cost = (cost + self._other_classes(pairs, priors, targets, predictions)).clamp_(max=MAX_COST)
        kept = segment_topk(-cost, segment, len(targets) * levels, self.topk).nonzero().squeeze(1)
        return kept, cost.index_select(0, kept)

    @property
    def _class_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        return bce if self.class_cost == "bce" else partial(sigmoid_focal, alpha=self.alpha, gamma=self.gamma)

    def _own_cost(
        self, pairs: Pairs, priors: Priors, targets: Targets, predictions: Predictions
    ) -> Float32[Tensor, "N"]:
        """Box loss, and class loss of the box's own class."""
        place = places(pairs, targets, len(priors))
        logit = class_logits(predictions, place, pairs, targets).double()
        gts = take_boxes(targets.boxes, pairs.gt)
        if self.box_cost == "giou":
            predicted = predicted_boxes(predictions, place, "PAA")
            box_loss = giou_loss(predicted, gts, inclusive_pixels=self.inclusive_pixels)
        else:
            deltas = predictions.deltas.flatten(0, 1).index_select(0, place).double()
            wanted = self.coder.encode_xyxy(gts.double(), priors, pairs.prior)
            box_loss = (deltas - wanted).abs().sum(1).float()
        return self._class_loss(logit, torch.ones_like(logit)).float() + box_loss

    def _other_classes(
        self, pairs: Pairs, priors: Priors, targets: Targets, predictions: Predictions
    ) -> Float32[Tensor, "N"]:
        """Class loss of all classes but the box's own."""
        place = places(pairs, targets, len(priors))
        label = targets.labels.index_select(0, pairs.gt)
        logits = predictions.logits.flatten(0, 1)
        rows = max(1, LOGIT_BUDGET // logits.shape[1])
        sums = [logits.new_zeros(0, dtype=torch.float64)]
        for place_part, label_part in zip(place.split(rows), label.split(rows)):
            part = logits.index_select(0, place_part).double()
            loss = self._class_loss(part, torch.zeros_like(part))
            sums.append(loss.scatter_(1, label_part[:, None], 0).sum(1))
        return torch.cat(sums).float()

    def extra_repr(self) -> str:
        return (
            f"topk={self.topk}, positive={self.positive}, boundary={self.boundary!r}, "
            f"class_cost={self.class_cost!r}, box_cost={self.box_cost!r}, "
            f"inclusive_pixels={self.inclusive_pixels}"
        )
