"""The anchors of torchvision's generator as priors, with the grid they lie on."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...priors import Priors
from ...structures import Level

Grid = tuple[int, int]
"""Height and width: cells of a level, or pixels of a batch of images."""


class AnchorRecorder:
    """A forward hook of an `AnchorGenerator`: keeps the anchors of the last training batch as priors.

    The loss is handed the anchors alone; the sizes of the feature maps, which make their list a grid, pass by
    here. Anchors on no even grid, which a generator of one's own may make, become free boxes.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._priors: Priors | None = None

    def __call__(self, generator: nn.Module, args: tuple[Any, ...], anchors: list[Tensor]) -> None:
        """Look at what the generator was given and what it made of it."""
        if not generator.training or not anchors:
            return
        images, feature_maps = args
        image = tuple(images.tensors.shape[-2:])
        sizes = tuple(tuple(features.shape[-2:]) for features in feature_maps)
        key = (image, sizes, anchors[0].device, anchors[0].dtype)
        # Multi-scale training changes the size from batch to batch; a grid is quickly made.
        if key != self._key:
            with torch.no_grad():
                self._key, self._priors = key, anchor_priors(generator, image, sizes, anchors[0])

    @property
    def priors(self) -> Priors:
        """Those of the last batch."""
        if self._priors is None:
            raise RuntimeError("expected the model's own anchor generator to run before its loss, it did not")
        return self._priors


def anchor_priors(
    generator: Any, image: Grid, sizes: Sequence[Grid], anchors: Float[Tensor, "P 4"]
) -> Priors:
    """The anchors of one image as priors.

    Args:
        generator: what made them.
        image: height and width in pixels of the padded batch.
        sizes: height and width of each feature map.
        anchors: as the generator gave them.
    """
    try:
        counts = generator.num_anchors_per_location()
        if anchors.dtype != torch.float32:
            # Under autocast torchvision rounds anchors to half precision, which bends the grid.
            anchors = _float32_anchors(generator.cell_anchors, image, sizes)
        levels = [
            Level(height, width, nominal_stride(image, (height, width)), count)
            for (height, width), count in zip(sizes, counts, strict=True)
        ]
        return Priors.from_levels(anchors, levels)
    except (AttributeError, ValueError):
        return Priors.from_boxes(anchors.float())


def nominal_stride(image: Grid, size: Grid) -> int:
    """Pixels per cell as people call it: the least power of two that gives a map of this size.

    torchvision places its anchors by image // map, which is 61 px where 800 px meet 13 cells of stride 64.
    Where no power of two fits, it is the least whole number that does.
    """
    least = math.ceil(max(side / cells for side, cells in zip(image, size)))
    power = 2 ** math.ceil(math.log2(least))
    fits = all(math.ceil(side / power) == cells for side, cells in zip(image, size))
    return power if fits else least


def _float32_anchors(
    cell_anchors: Sequence[Tensor], image: Grid, sizes: Sequence[Grid]
) -> Float[Tensor, "P 4"]:
    """What the generator would give in float32."""
    levels = []
    for (height, width), shapes in zip(sizes, cell_anchors):
        y = torch.arange(height, device=shapes.device) * (image[0] // height)
        x = torch.arange(width, device=shapes.device) * (image[1] // width)
        y, x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
        levels.append((shift + shapes.float()).reshape(-1, 4))
    return torch.cat(levels)
