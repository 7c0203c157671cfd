"""Box coding of R-CNN: offsets and size ratios relative to an anchor."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from .coders import MAX_LOG_SIZE
from .priors import Priors


@dataclass(frozen=True)
class DeltaCoder:
    """Boxes as offsets and size ratios relative to their anchor, the coding of R-CNN, RetinaNet and ATSS.

    With c the centre of a box, s its size and a marking the anchor, per axis

    * offset = weight · (c - c_a) / s_a, and c = c_a + offset / weight · s_a;
    * size = weight · ln(s / s_a), and s = s_a · exp(min(size / weight, max_log_size)).

    Neither clips to the image. A box without extent is coded as the smallest size that float32 holds; it
    decodes to one without extent. Values and gradients are finite for every finite delta.

    Args:
        weights: of x, y, width and height, above 0; those of torchvision's R-CNN heads, ATSS and PAA.
        max_log_size: bound of the logarithm of a size ratio from above; Detectron's ln(1000 / 16).

    Raises:
        ValueError: a weight or the bound is not positive or not finite.

    Source: Girshick et al. 2014 (R-CNN), appendix C; weights and bound from Detectron.
    """

    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    max_log_size: float = MAX_LOG_SIZE

    def __post_init__(self) -> None:
        if len(self.weights) != 4 or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"DeltaCoder: expected four finite weights above 0, got {self.weights}")
        if not 0 < self.max_log_size < math.inf:
            raise ValueError(f"DeltaCoder: expected a finite max_log_size above 0, got {self.max_log_size}")

    def decode(
        self, deltas: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Boxes (cxcywh, pixels) of deltas at the rows `prior` of `priors`; float32, float64 for float64."""
        return self._decode(deltas, priors.centers[prior], priors.wh[prior])

    def decode_all(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """Boxes (cxcywh, pixels) of the deltas of a whole batch, one for every prior."""
        return self._decode(deltas, priors.centers, priors.wh)

    def decode_boxes(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """The same as corners (xyxy, pixels)."""
        return cxcywh_to_xyxy(self.decode_all(deltas, priors))

    def decode_xyxy(
        self, deltas: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """`decode` as corners (xyxy, pixels)."""
        return cxcywh_to_xyxy(self.decode(deltas, priors, prior))

    def encode(
        self, boxes_cxcywh: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Deltas that decode to the boxes (cxcywh, pixels), up to the bound of the size."""
        anchor = priors.wh[prior]
        weight_center, weight_size = boxes_cxcywh.new_tensor(self.weights).split(2)
        center, size = boxes_cxcywh.split(2, dim=-1)
        offset = (center - priors.centers[prior]) / anchor
        ratio = (size / anchor).clamp(min=torch.finfo(size.dtype).tiny)
        return torch.cat((weight_center * offset, weight_size * ratio.log()), dim=-1)

    def encode_xyxy(
        self, boxes: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """`encode` for boxes given by their corners, such as `Targets.boxes`."""
        return self.encode(xyxy_to_cxcywh(boxes), priors, prior)

    def _decode(self, deltas: Tensor, centers: Tensor, anchor: Tensor) -> Tensor:
        with torch.autocast(deltas.device.type, enabled=False):
            deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
            # Contiguous: exp is several times slower on strided input.
            offset, size = (
                part.contiguous() for part in (deltas / deltas.new_tensor(self.weights)).split(2, -1)
            )
            return torch.cat(
                (centers + offset * anchor, size.clamp(max=self.max_log_size).exp() * anchor), dim=-1
            )
