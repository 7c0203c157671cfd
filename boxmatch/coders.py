"""Box coding: from what a head outputs to boxes in pixels, and back."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import cxcywh_to_xyxy
from .priors import Priors

GridMethod = Literal["single_grid", "nearby_grid", "all_grid"]
SizeDecode = Literal["linear", "sigmoid4", "exp"]

# A size differs from its anchor by at most this factor under "exp": the bound of Detectron for 1000 px images
# and 16 px anchors. It keeps every finite delta finite.
MAX_LOG_SIZE = math.log(1000 / 16)

# "linear" and "sigmoid4" multiply the anchor by 4, so that a delta of 1/4 reproduces it under "linear".
SIZE_FACTOR = 4.0

# The centre of nearby_grid reaches 1.5 cells from the middle of its own: over the 3x3 block.
NEARBY_REACH = 1.5


@runtime_checkable
class BoxCoder(Protocol):
    """What a detector asks of a coder; the losses of a family know their own coder better."""

    def decode_boxes(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """Boxes (xyxy, pixels, float32) of the deltas of a whole batch, one for every prior."""
        ...

    def decode_xyxy(
        self, deltas: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Boxes (xyxy, pixels, float32) of deltas at the rows `prior` of `priors`."""
        ...


@dataclass(frozen=True)
class GridCoder:
    """Boxes of the simple-YOLO family: a centre relative to the cell, a size relative to the anchor.

    With x the column of the cell and g the columns of its level, the centre in cells is (the row alike)

    * single_grid: x + sigmoid(tx), inside the cell;
    * nearby_grid: x + 0.5 + 1.5 tanh(tx), inside the 3x3 block around it;
    * all_grid: x + g tanh(tx), anywhere in the image. There is no 0.5: a zero delta means the corner of the
      cell.

    The width is, with a the anchor's (the height alike), 4 tw a for "linear", 4 sigmoid(tw) a for "sigmoid4"
    and exp(tw) a for "exp", where tw is held within ± `max_log_size`.

    Linear sizes are what the original does. They may come out negative; such a box overlaps nothing, its IoU
    has no gradient, and it is dropped before NMS. The other two are always positive.

    Args:
        method: the assigner the network is trained with; it is baked into the weights.
        wh_decode: how sizes are decoded.
        training_size: (height, width) in pixels that the reach of all_grid refers to. None takes the size of
            the input at hand, as the original does; then a network means other boxes at another input size.
        max_log_size: bound of tw and th under "exp"; log(1000 / 16) is Detectron's. YOLOv3 has none: 10 comes
            to the same and stays finite.

    Raises:
        ValueError: unknown `method` or `wh_decode`, `training_size` without all_grid, or a bound that is not
            positive or not finite.

    Source: zh320/simple-yolo-pytorch, `models/yolo.py` and `core/loss.py` (all three centres and "linear");
    "exp" from Redmon & Farhadi 2018 (YOLOv3), sec. 2.1.
    """

    method: GridMethod
    wh_decode: SizeDecode = "linear"
    training_size: tuple[int, int] | None = None
    max_log_size: float = MAX_LOG_SIZE

    def __post_init__(self) -> None:
        if self.method not in get_args(GridMethod):
            raise ValueError(f"GridCoder: expected method in {get_args(GridMethod)}, got {self.method!r}")
        if self.wh_decode not in get_args(SizeDecode):
            raise ValueError(
                f"GridCoder: expected wh_decode in {get_args(SizeDecode)}, got {self.wh_decode!r}"
            )
        if self.training_size is not None and self.method != "all_grid":
            raise ValueError(
                f"GridCoder: training_size is for all_grid only, got method {self.method!r}; leave it out"
            )
        if not 0 < self.max_log_size < math.inf:
            raise ValueError(f"GridCoder: expected a finite max_log_size above 0, got {self.max_log_size}")

    def decode(
        self, deltas: Float[Tensor, "N 4"], priors: Priors, prior: Int64[Tensor, "N"]
    ) -> Float[Tensor, "N 4"]:
        """Boxes (cxcywh, pixels, float32) of deltas (tx, ty, tw, th) at the rows `prior` of `priors`."""
        return self._decode(deltas, *self._frame(priors, prior))

    def decode_all(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """Boxes (cxcywh, pixels, float32) of the deltas of a whole batch, one for every prior."""
        return self._decode(deltas, *self._frame(priors, None))

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
        """Deltas that decode to the boxes; a box out of reach gets the nearest reachable one."""
        origin, reach, anchor = self._frame(priors, prior)
        offset = (boxes_cxcywh[:, :2] - origin) / reach
        ratio = boxes_cxcywh[:, 2:] / anchor
        # 1e-6 keeps logit and atanh finite at the rim; sigmoid and tanh of those bounds differ from it by
        # less.
        if self.method == "single_grid":
            center = torch.logit(offset, eps=1e-6)
        else:
            center = torch.atanh(offset.clamp(1e-6 - 1, 1 - 1e-6))
        if self.wh_decode == "linear":
            size = ratio / SIZE_FACTOR
        elif self.wh_decode == "sigmoid4":
            size = torch.logit(ratio / SIZE_FACTOR, eps=1e-6)
        else:
            size = ratio.clamp(min=torch.finfo(ratio.dtype).tiny).log()
            size = size.clamp(-self.max_log_size, self.max_log_size)
        return torch.cat((center, size), dim=-1)

    def _frame(self, priors: Priors, prior: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Point that a zero offset means, reach of the centre, anchor size: (N, 2) pixels each."""
        rows = slice(None) if prior is None else prior
        centers, anchor, stride = priors.centers[rows], priors.wh[rows], priors.stride[rows].unsqueeze(-1)
        if self.method == "single_grid":
            return centers - 0.5 * stride, stride, anchor
        if self.method == "nearby_grid":
            return centers, NEARBY_REACH * stride, anchor
        return centers - 0.5 * stride, self._image_reach(priors, rows), anchor

    def _image_reach(self, priors: Priors, rows: Tensor | slice) -> Tensor:
        """Width and height in pixels of the grid of each prior's level, or of the training size."""
        if self.training_size is not None:
            height, width = self.training_size
            return priors.centers.new_tensor([[width, height]])
        sides = [side * level.stride for level in priors.levels for side in (level.width, level.height)]
        # One by one: in an exported graph the sides are open, and no list of numbers.
        sizes = torch.cat([priors.centers.new_full((1,), side) for side in sides]).view(-1, 2)
        return sizes[priors.level[rows]]

    def _decode(self, deltas: Tensor, origin: Tensor, reach: Tensor, anchor: Tensor) -> Tensor:
        with torch.autocast(deltas.device.type, enabled=False):
            # Contiguous: tanh and its like are several times slower on strided input.
            offset, size = (part.contiguous() for part in deltas.float().split(2, dim=-1))
            offset = offset.sigmoid() if self.method == "single_grid" else offset.tanh()
            if self.wh_decode == "linear":
                size = SIZE_FACTOR * size
            elif self.wh_decode == "sigmoid4":
                size = SIZE_FACTOR * size.sigmoid()
            else:
                size = size.clamp(-self.max_log_size, self.max_log_size).exp()
            return torch.cat((origin + reach * offset, size * anchor), dim=-1)
