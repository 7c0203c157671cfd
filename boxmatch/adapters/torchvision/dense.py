"""RetinaNet and FCOS: an assigner where their losses match anchors."""

import warnings
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torchvision.models.detection import FCOS

from ...priors import Priors
from ...structures import Predictions, Targets
from .anchors import AnchorRecorder
from .matching import BETWEEN_THRESHOLDS, Matching, flat_targets, split_by_image

NO_CLASS = -1e4
"""A logit that neither the focal loss nor its gradient can see; half precision holds it."""


class DenseLoss:
    """Stands in for `compute_loss` of a RetinaNet or an FCOS.

    Args:
        model: whose head then computes the losses from the matched indices, as it always does.
        matching: what finds these indices.
        recorder: a hook of the model's anchor generator.
    """

    def __init__(self, model: Any, matching: Matching, recorder: AnchorRecorder) -> None:
        self.model, self.matching, self.recorder = model, matching, recorder

    def __call__(
        self,
        targets: list[dict[str, Any]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        num_anchors_per_level: list[int] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch by name; `num_anchors_per_level` is how FCOS alone calls it."""
        priors, flat = self.recorder.priors, flat_targets(targets)
        predictions = self._predictions(priors, head_outputs) if self._reads_predictions else None
        index = self.matching(priors, flat, predictions)
        if isinstance(self.model, FCOS):
            index, head_outputs = _for_fcos(index, head_outputs, priors, flat)
        matched = split_by_image(index, [len(target["boxes"]) for target in targets])
        losses: dict[str, Tensor] = self.model.head.compute_loss(targets, head_outputs, anchors, matched)
        return losses

    @property
    def _reads_predictions(self) -> bool:
        return self.matching.assigner.uses_predictions

    @torch.no_grad()
    def _predictions(self, priors: Priors, head_outputs: dict[str, Tensor]) -> Predictions:
        """What the head says, with the boxes that the model would detect."""
        deltas = head_outputs["bbox_regression"].detach().float()
        images = len(deltas)
        with torch.autocast(deltas.device.type, enabled=False):
            if isinstance(self.model, FCOS):
                boxes = self.model.box_coder.decode(deltas, priors.boxes.expand(images, -1, -1))
            else:
                boxes = self.model.box_coder.decode(deltas.flatten(0, 1), [priors.boxes] * images)
        quality = head_outputs.get("bbox_ctrness")
        return Predictions(
            logits=head_outputs["cls_logits"].detach(),
            deltas=deltas,
            boxes=boxes.reshape(deltas.shape),
            quality=None if quality is None else quality.detach().squeeze(2),
        )


def _for_fcos(
    index: Int64[Tensor, "B P"], head_outputs: dict[str, Tensor], priors: Priors, targets: Targets
) -> tuple[Int64[Tensor, "B P"], dict[str, Tensor]]:
    """What the loss of FCOS can express, and outputs from which it sees nothing of ignored priors.

    It decodes boxes around their point, and the centerness of a point outside its box is not a number: such
    pairs take no part. Nor has it a word for priors that take no part: their class logits are hidden.
    """
    outside = _outside(index, priors, targets)
    if bool(outside.any()):
        warnings.warn(
            f"{int(outside.sum())} of {int((index >= 0).sum())} positive points lie outside their box, where "
            "FCOS has no centerness; they take no part in its loss",
            stacklevel=4,
        )
        index = index.masked_fill(outside, BETWEEN_THRESHOLDS)
    ignored = index == BETWEEN_THRESHOLDS
    if bool(ignored.any()):
        logits = head_outputs["cls_logits"].masked_fill(ignored[..., None], NO_CLASS)
        head_outputs = {**head_outputs, "cls_logits": logits}
    return index, head_outputs


def _outside(index: Int64[Tensor, "B P"], priors: Priors, targets: Targets) -> Bool[Tensor, "B P"]:
    """Positive points that do not lie in the box they learn."""
    image, prior = (index >= 0).nonzero().unbind(1)
    center = priors.centers[prior]
    boxes = targets.boxes[index[image, prior]]
    outside = torch.zeros_like(index, dtype=torch.bool)
    outside[image, prior] = ((center < boxes[:, :2]) | (center > boxes[:, 2:])).any(1)
    return outside
