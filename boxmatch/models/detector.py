"""The one way through every detector: pictures → predictions → assignment → loss, or → detections."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from boxmatch.assign.base import Assigner
from boxmatch.coders import BoxCoder
from boxmatch.models.finite import first_not_finite
from boxmatch.postprocess import PostProcess
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Detections, Predictions, Targets

# Mean and standard deviation of ImageNet's RGB values in 0..1, as every torchvision backbone expects.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Detector(nn.Module, ABC):
    """A network with its priors, coder, assigner, loss and post-processing.

    A family of networks adds `network` (raw maps) and `flatten` (maps → one row per prior); the rest is here.
    The steps of training are separate, so that each can be timed or replaced: `priors` → `forward` →
    `assign` → `loss`.

    Args:
        class_names: one name per class, in label order.
        architecture: the family's constructor arguments that shape the network, as plain values; a saved file
            holds them.
        grid: makes the priors from the sizes of the maps.
        coder: turns deltas into boxes.
        assigner: says which prior learns which box.
        loss: weighted loss terms by name.
        postprocess: predictions → detections.

    Raises:
        ValueError: class names are missing or double.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        architecture: Mapping[str, Any],
        grid: AnchorGrid,
        coder: BoxCoder,
        assigner: Assigner,
        loss: nn.Module,
        postprocess: PostProcess,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.architecture = dict(architecture)
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"expected one or more different class names, got {list(self.class_names)}")
        self.grid = grid
        self.coder = coder
        self.assigner = assigner
        self.loss = loss
        self.postprocess = postprocess
        # Not saved: the keys stay those of the published weights.
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of class logits per prior."""
        return len(self.class_names)

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def diagnostics(self) -> Mapping[str, Tensor]:
        """Numbers of the last training step beside the loss terms, for logs; none for most losses."""
        return getattr(self.loss, "diagnostics", {})

    @abstractmethod
    def network(self, normalised: Float[Tensor, "B 3 H W"]) -> Sequence[Any]:
        """Raw maps of each level, in the layout of the published network."""

    @abstractmethod
    def flatten(self, maps: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Class logits (B, P, C), deltas (B, P, 4) and quality (B, P) in the order of the priors."""

    def normalise(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """uint8 or 0..1 RGB to zero mean and unit deviation."""
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        return (values - self.mean) / self.std

    def priors(self, images: Tensor | tuple[int, int]) -> Priors:
        """Priors of pictures (B, 3, H, W) or of a size (height, width), on the detector's device."""
        height, width = images.shape[-2:] if isinstance(images, Tensor) else images
        sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in self.grid.strides]
        # The grid keeps what it made: made under inference_mode it could not be used in training afterwards.
        with torch.inference_mode(False):
            return self.grid(sizes, self.mean.device)

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Predictions:
        """Predictions for RGB pictures, uint8 or float in 0..1, of any size.

        Boxes are decoded in evaluation mode and for assigners that look at predictions; else they are None.
        """
        return self.read(self.network(self.normalise(images)), images)

    def read(self, maps: Sequence[Any], images: Shaped[Tensor, "B 3 H W"]) -> Predictions:
        """Predictions from the raw maps of the pictures, see `forward`."""
        logits, deltas, quality = self.flatten(maps)
        with torch.autocast(images.device.type, enabled=False):
            logits, deltas = logits.float(), deltas.float()
            quality = None if quality is None else quality.float()
            decode = not self.training or self.assigner.uses_predictions
            boxes = self.decode(deltas, self.priors(images)) if decode else None
            return Predictions(logits=logits, deltas=deltas, boxes=boxes, quality=quality)

    def decode(self, deltas: Float[Tensor, "B P 4"], priors: Priors) -> Float[Tensor, "B P 4"]:
        """Boxes (xyxy in pixels) of every prior of every picture; not clipped to the picture."""
        return self.coder.decode_boxes(deltas, priors)

    def assign(
        self, priors: Priors, targets: Targets, predictions: Predictions | None, *, explain: bool = False
    ) -> Assignment:
        """Which prior learns which box, in float32; without gradient, unless the assigner itself learns.

        Args:
            priors: those of the pictures.
            targets: boxes of the batch.
            predictions: of the pictures; may be None for assigners that do not look at them.
            explain: see `Assigner`.
        """
        with torch.autocast(targets.boxes.device.type, enabled=False):
            seen = predictions
            if predictions is not None and not self.assigner.keeps_graph:
                seen = predictions.detach()
            return self.assigner(priors, targets, seen, explain=explain)

    def losses(self, images: Shaped[Tensor, "B 3 H W"], targets: Targets) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is what training minimises.

        Raises:
            ValueError: a picture tensor, box or label is outside what `check` allows.
        """
        self.check(images, targets)
        priors = self.priors(images)
        predictions = self(images)
        assignment = self.assign(priors, targets, predictions)
        with torch.autocast(images.device.type, enabled=False):
            return self.loss(priors, targets, predictions, assignment, self.coder)

    @torch.no_grad()
    def predict(
        self,
        images: Shaped[Tensor, "B 3 H W"],
        *,
        postprocess: PostProcess | None = None,
        sizes: Int64[Tensor, "B 2"] | None = None,
    ) -> list[Detections]:
        """Detections of each picture in pixels of `images`, in evaluation mode whatever the mode is now.

        Args:
            images: RGB, uint8 or float in 0..1.
            postprocess: takes the place of the detector's own for this call.
            sizes: (height, width) of each picture without padding on the right and at the bottom; boxes are
                clipped to it before suppression. None clips them to `images`.

        Raises:
            ValueError: the pictures are no RGB batch, the sizes are those of another number of pictures, or
                the network gives a value that is not finite.
        """
        self.check(images)
        with evaluation(self):
            predictions = self(images)
        levels = self.priors(images).levels
        refuse_broken(first_not_finite(predictions, levels))
        height, width = images.shape[2:]
        size = (height, width) if sizes is None else sizes
        return (postprocess or self.postprocess)(predictions, size, levels)

    @torch.no_grad()
    def broken_output(self, images: Shaped[Tensor, "B 3 H W"]) -> tuple[str, int] | None:
        """Tensor and level, and the image, of the first output in evaluation mode that is not finite."""
        with evaluation(self):
            return first_not_finite(self(images), self.priors(images).levels)

    def check(self, images: Tensor, targets: Targets | None = None) -> None:
        """The guard at the boundary.

        Raises:
            ValueError: pictures are not (B, 3, H, W) uint8 or float in 0..1; or the targets belong to another
                number of pictures, or hold a box that is not finite or has no extent, or an unknown label.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected RGB pictures (B, 3, H, W), got {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"expected pictures as uint8 or float in 0..1, got {images.dtype}")
        if images.is_floating_point() and images.numel():
            low, high = (float(bound) for bound in torch.aminmax(images.detach()))
            # Resampling may overshoot a little; pictures in 0..255 or already normalised lie far outside.
            if not (low >= -0.25 and high <= 1.25):
                raise ValueError(
                    f"expected float pictures in 0..1, not normalised, got values from {low:g} to {high:g}; "
                    "pass uint8 pictures or divide them by 255"
                )
        if targets is not None:
            if targets.batch_size != len(images):
                raise ValueError(
                    f"expected targets of {len(images)} pictures, got those of {targets.batch_size}"
                )
            targets.check(self.num_classes)


def refuse_broken(broken: tuple[str, int] | None) -> None:
    """Raise ValueError for what `first_not_finite` found, if it found something."""
    if broken is not None:
        raise ValueError(
            f"the network gives a {broken[0]} that is not finite for image {broken[1]} of the batch; "
            "check the weights (a diverged run?) and that the picture is finite"
        )


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside each module has its own mode again, frozen ones included."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
