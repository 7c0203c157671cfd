"""Measures of how alike a ground truth and another box are, as the rules of assignment compare them.

Every value is the same wherever in a tensor its pair stands (see `reproducible`), and finite for every finite
box. `losses.box_similarity` is the differentiable counterpart; it promises neither.

Letters: G boxes, L levels, A anchors per cell, N pairs.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..boxes import box_centers, box_sizes, pair_diou, pair_iou, pair_iou_and_giou

MAX_COORDINATE = 1e6
"""Coordinates beyond this, in pixels, count as this: areas stay finite in float32."""

MIN_SIDE = 1e-6
"""Shorter sides, in pixels, count as this where a ratio of sides is taken."""

VALUE_SLACK = 1e-5
"""Share by which a threshold is lowered where pairs that may reach it are listed."""


def hold(boxes: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    """The boxes with no coordinate beyond `MAX_COORDINATE`."""
    return boxes.clamp(-MAX_COORDINATE, MAX_COORDINATE)


class Similarity(ABC):
    """A measure of how alike a ground truth and another box are: at most 1, which equal boxes reach."""

    def __call__(self, gts: Float[Tensor, "N 4"], others: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        """Value of each pair.

        Args:
            gts: ground truths, xyxy px; not every measure is symmetric.
            others: priors or predicted boxes, xyxy px.
        """
        return self.of_held(hold(gts), hold(others))

    @abstractmethod
    def of_held(self, gts: Float[Tensor, "N 4"], others: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        """The same for boxes that have been through `hold`, when each is in many pairs."""


@dataclass(frozen=True)
class Overlap(Similarity):
    """The IoU and its relatives.

    * iou: intersection over union, `boxes.pair_iou`.
    * giou: iou - (E - U) / E, with E the area of the smallest box around both and U that of the union.
    * diou: iou - d² / c², with d the distance of the centres and c the diagonal of that box.
    * ciou: diou - alpha v, with v = 4 / π² (Δ atan(w / h))² and alpha = v / (1 - iou + v).

    None is more than the IoU.

    Args:
        kind: member of the family.

    Source: Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (DIoU, CIoU).
    """

    kind: Literal["iou", "giou", "diou", "ciou"] = "iou"

    def of_held(self, gts: Float[Tensor, "N 4"], others: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        if self.kind == "iou":
            return pair_iou(gts, others)
        if self.kind == "giou":
            # Rounding must not lift it above the IoU, by which candidates are found.
            return torch.minimum(*pair_iou_and_giou(gts, others))
        diou = pair_diou(gts, others)
        if self.kind == "diou":
            return diou
        aspect = (_angle(gts) - _angle(others)).square().mul_(4 / math.pi**2).float()
        alpha = aspect / (1 - pair_iou(gts, others) + aspect).clamp(min=torch.finfo(aspect.dtype).tiny)
        return diou - alpha * aspect


class Distance(Similarity):
    """A measure that falls with the distance of the centres and never reaches 0 by rule."""

    def of_held(self, gts: Float[Tensor, "N 4"], others: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        # In float64 throughout: the result is rounded once, to the same float32 everywhere.
        between = (box_centers(gts.double()) - box_centers(others.double())).abs()
        sizes, other_sizes = (box_sizes(boxes.double()).clamp_(min=0) for boxes in (gts, others))
        return self._of_sizes(between, sizes, other_sizes).float()

    @abstractmethod
    def _of_sizes(
        self, between: Float64[Tensor, "N 2"], sizes: Float64[Tensor, "N 2"], others: Float64[Tensor, "N 2"]
    ) -> Float64[Tensor, "N"]:
        """Value for distances of the centres, sizes of the ground truths and of the others."""

    @abstractmethod
    def farthest(
        self,
        least: Float64[Tensor, "G 1 1"],
        sizes: Float64[Tensor, "G 1 1 2"],
        others: Float64[Tensor, "L A 2"],
        slack: Float64[Tensor, ""],
    ) -> Float64[Tensor, "G L A 2"]:
        """Distance of the centres, per axis, beyond which the value is less than `least`.

        Args:
            least: more than 0.
            slack: pixels by which the sizes of the others and the distance may be off.

        Returns:
            Not too small by any rounding; negative where the shapes alone keep the value below.
        """


@dataclass(frozen=True)
class NWD(Distance):
    """exp(-sqrt(W²) / constant), with W² = dx² + dy² + ((w - w')² + (h - h')²) / 4.

    W is the Wasserstein distance of the Gaussians N(centre, diag(w² / 4, h² / 4)). It is measured in pixels:
    the same boxes at twice the resolution are less alike.

    Args:
        constant: pixels; the mean side of the objects of AI-TOD in the authors' code. Take that of your data.

    Raises:
        ValueError: the constant is not positive.

    Source: Wang et al. 2021 (NWD). The authors' code adds 1e-6 to sides and distance, so that equal boxes are
    slightly below 1; here they are 1.
    """

    constant: float = 12.8

    def __post_init__(self) -> None:
        _check_positive("NWD", constant=self.constant)

    def _of_sizes(
        self, between: Float64[Tensor, "N 2"], sizes: Float64[Tensor, "N 2"], others: Float64[Tensor, "N 2"]
    ) -> Float64[Tensor, "N"]:
        squares = between.square() + (sizes - others).square() / 4
        return (squares.sum(1).sqrt() / -self.constant).exp_()

    def farthest(
        self,
        least: Float64[Tensor, "G 1 1"],
        sizes: Float64[Tensor, "G 1 1 2"],
        others: Float64[Tensor, "L A 2"],
        slack: Float64[Tensor, ""],
    ) -> Float64[Tensor, "G L A 2"]:
        radius = -self.constant * _lowered(least).log()
        shape = ((sizes - others).abs() - slack).clamp(min=0).square().sum(3) / 4
        distance = _root(radius.square() - shape, slack)
        return distance[..., None].expand(*distance.shape, 2)


@dataclass(frozen=True)
class KLD(Distance):
    """1 / (1 + KL), the Kullback-Leibler divergence of the Gaussians N(centre, diag(w² / 4, h² / 4)).

    With w, h of the ground truth and w', h' of the other box

        KL = (w'² / w² + h'² / h² + 4 dx² / w² + 4 dy² / h² + ln(w² / w'²) + ln(h² / h'²) - 2) / 2

    It is not symmetric and does not change with the resolution. Sides below 1e-6 px count as that.

    Source: Xu et al. 2022 (RFLA), where the other box is the receptive field of a point.
    """

    def _of_sizes(
        self, between: Float64[Tensor, "N 2"], sizes: Float64[Tensor, "N 2"], others: Float64[Tensor, "N 2"]
    ) -> Float64[Tensor, "N"]:
        sizes, others = sizes.clamp(min=MIN_SIDE), others.clamp(min=MIN_SIDE)
        shape = _shape_divergence(others / sizes).sum(1)
        return 1 / (1 + (shape + (2 * between / sizes).square().sum(1)) / 2)

    def farthest(
        self,
        least: Float64[Tensor, "G 1 1"],
        sizes: Float64[Tensor, "G 1 1 2"],
        others: Float64[Tensor, "L A 2"],
        slack: Float64[Tensor, ""],
    ) -> Float64[Tensor, "G L A 2"]:
        sizes = sizes.clamp(min=MIN_SIDE)
        # Of all ratios that the slack allows, the one nearest to 1 diverges least.
        ratio = torch.ones_like(others).clamp(
            (others - slack).clamp(min=MIN_SIDE) / sizes, (others + slack).clamp(min=MIN_SIDE) / sizes
        )
        room = 2 / _lowered(least) - 2 - _shape_divergence(ratio).sum(3)
        return torch.where(
            room[..., None] >= 0, room.clamp(min=0).sqrt()[..., None] * sizes / 2 + slack, -1.0
        )


@dataclass(frozen=True)
class SimD(Distance):
    """exp(-(location + shape)), both relative to the sum of the sides.

        location = sqrt((m dx / (w + w'))² + (n dy / (h + h'))²)
        shape    = sqrt((m (w - w') / (w + w'))² + (n (h - h') / (h + h'))²)

    Args:
        m: weight of the x direction, a statistic of the data set; 6.13 in the authors' code for VisDrone.
        n: weight of the y direction; 4.59 there.

    Raises:
        ValueError: a weight is not positive.

    Source: Shi et al. 2024 (SimD).
    """

    m: float = 6.13
    n: float = 4.59

    def __post_init__(self) -> None:
        _check_positive("SimD", m=self.m, n=self.n)

    def _of_sizes(
        self, between: Float64[Tensor, "N 2"], sizes: Float64[Tensor, "N 2"], others: Float64[Tensor, "N 2"]
    ) -> Float64[Tensor, "N"]:
        weight = between.new_tensor((self.m, self.n)) / (sizes + others).clamp(min=MIN_SIDE)
        location = (between * weight).square().sum(1).sqrt()
        return (location + ((sizes - others) * weight).square().sum(1).sqrt()).neg_().exp_()

    def farthest(
        self,
        least: Float64[Tensor, "G 1 1"],
        sizes: Float64[Tensor, "G 1 1 2"],
        others: Float64[Tensor, "L A 2"],
        slack: Float64[Tensor, ""],
    ) -> Float64[Tensor, "G L A 2"]:
        weight = sizes.new_tensor((self.m, self.n)) / (sizes + others + slack).clamp(min=MIN_SIDE)
        apart = ((sizes - others).abs() - slack).clamp(min=0)
        room = -_lowered(least).log() - (apart * weight).square().sum(3).sqrt()
        return torch.where(room[..., None] >= 0, room[..., None] / weight + slack, -1.0)


def _check_positive(measure: str, **constants: float) -> None:
    for name, value in constants.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{measure}: expected {name} above 0, got {value}")


def _angle(boxes: Float[Tensor, "N 4"]) -> Float64[Tensor, "N"]:
    """Angle of the diagonal to the vertical."""
    width, height = box_sizes(boxes).clamp_(min=0).double().unbind(1)
    return torch.atan2(width, height)


def _shape_divergence(ratio: Tensor) -> Tensor:
    """r² - 1 - ln r²: 0 for a ratio of 1, more for any other."""
    return ratio.square() - 1 - 2 * ratio.log()


def _lowered(least: Tensor) -> Tensor:
    return least * (1 - VALUE_SLACK)


def _root(square: Tensor, slack: Tensor) -> Tensor:
    """Square root and some pixels more; -1 where there is none."""
    return torch.where(square >= 0, square.clamp(min=0).sqrt() + slack, -1.0)
