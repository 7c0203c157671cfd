"""What a model must not be given: boxes without extent or number, labels that are no class of it."""

from typing import Any

import torch
from torch import Tensor, nn


class TargetGuard:
    """A forward hook that looks at the targets of a training step before the model does.

    Without it such targets end in a loss that is not a number, in the class of another box, or, on a GPU, in
    an error that names no line of the caller's.

    Args:
        first_label: 1 for models whose class 0 is the background.
        num_classes: classes of the model, the background included; None if it cannot be told.
    """

    def __init__(self, first_label: int, num_classes: int | None) -> None:
        self.first_label = first_label
        self.num_classes = num_classes

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the targets of a call.

        Raises:
            ValueError: a box is not finite or has no extent, or a label is no class; names image and box.
        """
        targets = kwargs.get("targets", args[1] if len(args) > 1 else None)
        if not model.training or targets is None:
            return
        # Whatever is no list of tensors of the right shape, torchvision refuses itself.
        images = [target for target in targets if _is_boxes(target.get("boxes"))]
        self._check_lengths(targets)
        boxes = [target["boxes"].detach() for target in images]
        labels = [target["labels"] for target in images]
        if not boxes:
            return
        # One look at the whole batch, and a closer one only where something is wrong.
        if bool(
            torch.stack([ok.all() for _, ok in self._verdicts(torch.cat(boxes), torch.cat(labels))]).all()
        ):
            return
        for number, target in enumerate(targets):
            for expected, ok in self._verdicts(target["boxes"], target["labels"]):
                if not bool(ok.all()):
                    row = int((~ok).nonzero()[0])
                    raise ValueError(
                        f"{_named(number, target)}, box {row}: expected {expected}, got "
                        f"{target['boxes'][row].tolist()} with label {target['labels'][row].item()}; "
                        "drop or repair it"
                    )

    def _verdicts(self, boxes: Tensor, labels: Tensor) -> list[tuple[str, Tensor]]:
        """What is expected, and which boxes are so."""
        in_range = labels >= self.first_label
        expected = f"a label of {self.first_label} or more"
        if self.num_classes is not None:
            in_range &= labels < self.num_classes
            expected = f"a label in {self.first_label} .. {self.num_classes - 1}"
        if self.first_label:
            expected += " (0 is the background)"
        return [
            ("finite coordinates", torch.isfinite(boxes).all(1)),
            ("x1 < x2 and y1 < y2", (boxes[:, 2:] > boxes[:, :2]).all(1)),
            (expected, in_range),
        ]

    def _check_lengths(self, targets: Any) -> None:
        for number, target in enumerate(targets):
            boxes, labels = target.get("boxes"), target.get("labels")
            if _is_boxes(boxes) and (not isinstance(labels, Tensor) or labels.shape != boxes.shape[:1]):
                got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(
                    f"{_named(number, target)}: expected a tensor of {len(boxes)} labels, one per box, "
                    f"got {got}"
                )


def _is_boxes(boxes: Any) -> bool:
    return isinstance(boxes, Tensor) and boxes.ndim == 2 and boxes.shape[1] == 4


def _named(number: int, target: dict[str, Any]) -> str:
    """The place of an image in the batch, and its own name where it has one."""
    if "image_id" not in target:
        return f"image {number} of the batch"
    name = target["image_id"]
    return f"image {number} of the batch (image_id {name.tolist() if isinstance(name, Tensor) else name})"
