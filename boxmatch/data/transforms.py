"""Augmentation: the options, and what is done to colours and to boxes after the geometry."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

RANGES = ("randscale", "perspective", "rotate")
PROBABILITIES = (
    "mosaic_p",
    "randscale_p",
    "perspective_p",
    "rotate_p",
    "color_p",
    "h_flip",
    "v_flip",
    "rot90_p",
    "min_visibility",
)
# Those that change where a picture lies, and not only its colours or its direction.
LAYOUT_PROBABILITIES = ("mosaic_p", "randscale_p", "perspective_p", "rotate_p", "rot90_p")
STRENGTHS = ("brightness", "contrast", "saturation")
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

# ITU-R BT.601 luma, as Pillow and torchvision use it.
LUMA = (0.299, 0.587, 0.114)
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class Augment:
    """What happens to a training picture. Defaults: the published YOLO preset; what it does not have is off.

    Args:
        mosaic_p: probability that four pictures meet in the centre of a canvas twice as large as the input.
        close_mosaic_epochs: mosaic is off in the last epochs of the run, this many.
        mosaic_jitter: the point where the four meet moves by up to this part of the input's size, each way.
        randscale: the canvas is scaled by 1 + a number drawn from this range.
        randscale_p: probability of the scaling.
        perspective: range of the deviation of the four corners, as part of the size.
        perspective_p: probability of the perspective change.
        rotate: range of the rotation about the centre in degrees.
        rotate_p: probability of the rotation.
        brightness: brightness is multiplied by 1 ± up to this.
        contrast: distance from the mean grey is multiplied by 1 ± up to this.
        saturation: distance from the pixel's own grey is multiplied by 1 ± up to this.
        hue: colours turn about the grey axis by up to this part of a full turn, each way.
        color_p: probability of the four colour changes together, in random order.
        h_flip: probability of mirroring left to right.
        v_flip: probability of mirroring top to bottom.
        rot90_p: probability that a picture is turned by 90, 180 or 270 degrees before it is placed.
        min_visibility: a box is dropped when a smaller part of its area is left after cropping.

    Raises:
        ValueError: a probability outside [0, 1], a range whose ends are swapped, a negative strength.

    Source: specification of the simple YOLO, section 6.
    """

    mosaic_p: float = 1.0
    close_mosaic_epochs: int = 0
    mosaic_jitter: float = 0.0
    randscale: tuple[float, float] = (-0.5, 1.0)
    randscale_p: float = 0.5
    perspective: tuple[float, float] = (0.05, 0.1)
    perspective_p: float = 0.0
    rotate: tuple[float, float] = (-90.0, 90.0)
    rotate_p: float = 0.0
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.0
    color_p: float = 0.5
    h_flip: float = 0.5
    v_flip: float = 0.0
    rot90_p: float = 0.0
    min_visibility: float = 0.01

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}: expected a number in 0 .. 1, got {getattr(self, name)}")
        for name in STRENGTHS:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}: expected a strength in 0 .. 1, got {getattr(self, name)}")
        for name in RANGES:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"augment.{name}: expected (low, high), got ({low}, {high})")
        if self.randscale[0] <= -1:
            raise ValueError(
                f"augment.randscale: expected more than -1, which is size zero, got {self.randscale}"
            )
        if not 0 <= self.perspective[0] <= self.perspective[1] < 0.5:
            raise ValueError(f"augment.perspective: expected a range in 0 .. 0.5, got {self.perspective}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"augment.hue: expected a number in 0 .. 0.5, got {self.hue}")
        if not 0 <= self.mosaic_jitter < 1:
            raise ValueError(f"augment.mosaic_jitter: expected a number in 0 .. 1, got {self.mosaic_jitter}")
        if self.close_mosaic_epochs < 0:
            raise ValueError(
                f"augment.close_mosaic_epochs: expected 0 or more, got {self.close_mosaic_epochs}"
            )

    @property
    def largest_scale(self) -> float:
        """The strongest enlargement against a picture that just fits the input."""
        return 1 + max(self.randscale[1], 0.0) if self.randscale_p else 1.0


def jitter_colors(
    image: UInt8[Tensor, "3 H W"], options: Augment, random: np.random.Generator
) -> UInt8[Tensor, "3 H W"]:
    """Brightness, contrast, saturation and hue, each by a random amount and in random order.

    The first three do what torchvision's adjust_brightness, adjust_contrast and adjust_saturation do, in
    place and without rounding in between.
    """
    strengths = (options.brightness, options.contrast, options.saturation)
    brightness, contrast, saturation = (random.uniform(1 - s, 1 + s) for s in strengths)
    turn = random.uniform(-options.hue, options.hue)
    luma = torch.tensor(LUMA)
    colors = image.float()
    flat = colors.view(3, -1)
    for change in random.permutation(4).tolist():
        if change == BRIGHTNESS and options.brightness:
            flat.mul_(brightness)
        elif change == CONTRAST and options.contrast:
            mean = float(luma @ flat.mean(1))
            flat.mul_(contrast).add_((1 - contrast) * mean)
        elif change == SATURATION and options.saturation:
            grey = luma @ flat
            flat.sub_(grey).mul_(saturation).add_(grey)
        elif change == HUE and options.hue:
            flat.copy_(hue_matrix(turn) @ flat)
        flat.clamp_(0, 255)
    # NumPy's conversion to bytes is seven times as fast as torch's.
    return torch.from_numpy(colors.round_().numpy().astype(np.uint8))


def hue_matrix(turn: float) -> Float[Tensor, "3 3"]:
    """Rotation of RGB about the grey axis, in the chroma plane of YIQ; `turn` in full turns.

    It keeps luma and costs one matrix product, where a way through HSV costs ten times as much.
    """
    to_yiq = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]], dtype=torch.float64)
    return (torch.linalg.inv(to_yiq) @ rotation @ to_yiq).float()


def keep_visible(
    boxes: Float32[np.ndarray, "n 4"], size: tuple[int, int], min_area: float, min_visibility: float
) -> tuple[Float32[np.ndarray, "n 4"], Bool[np.ndarray, "n"]]:
    """Boxes clipped to a picture of this width and height, and which of them remain.

    Args:
        min_area: square pixels that must be left, at least.
        min_visibility: part of the area that must be left, at least.

    Returns:
        All boxes clipped, and a mask; boxes without extent never remain.
    """
    clipped = np.clip(boxes, 0, np.array(size * 2, np.float32))
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.clip(clipped[:, 2:] - clipped[:, :2], 0, None).prod(1)
    return clipped, (left > 0) & (left >= min_area) & (left >= min_visibility * whole)
