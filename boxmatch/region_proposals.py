"""From the predictions of a region proposal network to the proposals of each picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from .coders import BoxCoder
from .postprocess import best_first, clip
from .priors import Priors
from .segments import segment_topk
from .structures import Predictions

_CLOSEST_TO_CERTAIN = torch.finfo(torch.float32).eps  # the next probability below 1 that is held


def proposal_logits(predictions: Predictions) -> Float[Tensor, "B P"]:
    """What proposals are ranked by: the objectness, or its geometric mean with the predicted IoU, as a logit.

    With an IoU branch it is logit(sqrt(sigmoid(objectness) · sigmoid(iou))), where the probability is held
    away from 0 and 1, so that the logit is never infinite.

    Args:
        predictions: of one class; `quality` holds the IoU logits or is None.

    Source: kkhoot/PAA_Faster-RCNN.
    """
    objectness = predictions.logits.squeeze(2)
    if predictions.quality is None:
        return objectness
    return (objectness.sigmoid() * predictions.quality.sigmoid()).sqrt().logit(eps=_CLOSEST_TO_CERTAIN)


@dataclass(frozen=True)
class RegionProposals:
    """The best of each level, clipped to the picture, NMS within each level, the best of all levels.

    All pictures of a batch go through it together. Equal scores go to the lowest prior. Boxes that are not
    finite, or have no extent inside the picture, are dropped.

    Args:
        pre_nms_topk: boxes of each level that enter NMS.
        post_nms_topk: proposals of each picture, at most.
        nms_iou: of two boxes of one level with an IoU above it, the lower score is dropped.

    Raises:
        ValueError: a count is below 1 or the IoU outside of [0, 1].

    Source: Lin et al. 2017 (FPN), sec. 4.2; the numbers are those of Detectron2.
    """

    pre_nms_topk: int = 1000
    post_nms_topk: int = 1000
    nms_iou: float = 0.7

    def __post_init__(self) -> None:
        for name, count in (("pre_nms_topk", self.pre_nms_topk), ("post_nms_topk", self.post_nms_topk)):
            if count < 1:
                raise ValueError(f"RegionProposals: expected {name} of 1 or more, got {count}")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"RegionProposals: expected nms_iou in [0, 1], got {self.nms_iou}")

    @torch.no_grad()
    def __call__(
        self, predictions: Predictions, priors: Priors, coder: BoxCoder, limits: Float[Tensor, "B 4"]
    ) -> list[Float[Tensor, "_K 4"]]:
        """Proposals (xyxy, pixels) of each picture, best first.

        Args:
            predictions: of one class, float32.
            priors: of the predictions.
            coder: decodes their deltas.
            limits: width, height, width, height of each picture in pixels.
        """
        scores = proposal_logits(predictions)
        images, levels = len(scores), max(len(priors.levels), 1)
        group = (torch.arange(images, device=scores.device)[:, None] * levels + priors.level).flatten()
        # A score that is not a number, of a network that diverges, comes last.
        flat = scores.flatten().nan_to_num(nan=-torch.inf)
        rows = segment_topk(flat, group, images * levels, self.pre_nms_topk).nonzero().squeeze(1)
        image, prior = rows // len(priors), rows % len(priors)
        decoded = coder.decode_xyxy(predictions.deltas[image, prior], priors, prior)
        boxes, _ = clip(decoded, limits[image])
        valid = (torch.isfinite(decoded).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)).nonzero().squeeze(1)
        boxes, scores, image, group = boxes[valid], flat[rows][valid], image[valid], group[rows][valid]
        # float64: torchvision may separate groups by shifting their boxes, which would round late ones.
        kept = batched_nms(boxes.double(), scores.double(), group, self.nms_iou).sort().values
        kept = kept[best_first(scores[kept], image[kept], self.post_nms_topk, images)]
        return list(boxes[kept].split(torch.bincount(image[kept], minlength=images).tolist()))
