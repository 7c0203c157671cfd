"""From predictions to detections: threshold, clip, class-wise NMS, truncation."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import batched_nms

from .structures import Detections, Level, Predictions


@dataclass(frozen=True)
class PostProcess:
    """One label per box, class-wise NMS, and at most so many boxes per image.

    The score is objectness times the greatest class probability. With a single class the class factor is left
    out: it gets no loss and would be noise. The order of the steps is that of the original: threshold, clip
    to the input, NMS, truncation. Before NMS, boxes that are not finite or have no positive width and height
    are dropped (linear size decoding yields some). A box wholly beyond the border is clipped to a line and
    stays, as in the original.

    `dataclasses.replace(postprocess, nms_iou=0.4)` gives the same with another option.

    Args:
        score_threshold: boxes with scores above it are kept.
        nms_iou: of two boxes of one class with an IoU above it, the lower score is dropped.
        max_detections: per image, after NMS.
        pre_nms_topk: candidates per image that enter NMS, best scores first. It bounds the cost, which is
            quadratic in the boxes of a class; results change only where the best 5000 hold fewer than
            `max_detections` survivors.

    Raises:
        ValueError: an option is out of range.

    Source: zh320/simple-yolo-pytorch, commit 0b61f0a; the defaults are those of its validation.
    """

    score_threshold: float = 0.001
    nms_iou: float = 0.6
    max_detections: int = 100
    pre_nms_topk: int = 5000

    @property
    def shown_score(self) -> float:
        """From which score on a person wants to see a detection on a picture."""
        return 0.3

    def __post_init__(self) -> None:
        for name, value in (("score_threshold", self.score_threshold), ("nms_iou", self.nms_iou)):
            if not 0 <= value <= 1:
                raise ValueError(f"PostProcess: expected {name} in [0, 1], got {value}")
        for name, count in (("max_detections", self.max_detections), ("pre_nms_topk", self.pre_nms_topk)):
            if count < 1:
                raise ValueError(f"PostProcess: expected {name} of 1 or more, got {count}")

    @torch.no_grad()
    def __call__(
        self,
        predictions: Predictions,
        size: tuple[int, int] | Int64[Tensor, "B 2"],
        levels: tuple[Level, ...] = (),
    ) -> list[Detections]:
        """Detections of each image, best first; equal scores by prior.

        Args:
            predictions: with decoded boxes (xyxy in pixels). Without quality the score is the class
                probability.
            size: (height, width) in pixels, of the input or of each picture in it; boxes are clipped to it.
            levels: of the priors; all priors count alike here, whatever their level.

        Raises:
            ValueError: predictions hold no boxes, or the sizes are those of another number of pictures.
        """
        if predictions.boxes is None:
            raise ValueError(
                "PostProcess: expected decoded boxes in predictions.boxes, got None; decode them first"
            )
        with torch.autocast(predictions.boxes.device.type, enabled=False):
            scores, labels = class_scores(predictions)
            limits = box_limits(size, predictions.boxes)
            boxes, valid = clip(predictions.boxes.float(), limits[:, None])
            image, prior = ((scores > self.score_threshold) & valid).nonzero().unbind(1)
            scores, labels, boxes = scores[image, prior], labels[image, prior], boxes[image, prior]
            images, _, classes = predictions.logits.shape
            return self.select(boxes, scores, labels, image, images, classes)

    def select(
        self,
        boxes: Float[Tensor, "N 4"],
        scores: Float[Tensor, "N"],
        labels: Int64[Tensor, "N"],
        image: Int64[Tensor, "N"],
        images: int,
        classes: int,
    ) -> list[Detections]:
        """Detections of each image out of candidates above the threshold: NMS per class, then truncation.

        Args:
            boxes: xyxy in pixels, clipped.
            scores: of each.
            labels: of each.
            image: of each; equal scores of an image go by position.
            images: how many there are.
            classes: how many there are.
        """
        order = best_first(scores, image, self.pre_nms_topk, images)
        image, scores, labels, boxes = image[order], scores[order], labels[order], boxes[order]
        kept = self._nms(boxes, scores, labels + image * classes)
        kept = kept[rank_in_group(image[kept], images) < self.max_detections]
        counts = torch.bincount(image[kept], minlength=images).tolist()
        parts = (boxes[kept].split(counts), scores[kept].split(counts), labels[kept].split(counts))
        return [Detections(*part) for part in zip(*parts, strict=True)]

    def _nms(self, boxes: Tensor, scores: Tensor, group: Tensor) -> Int64[Tensor, "K"]:
        """Ascending positions that survive; boxes of different groups do not meet.

        float64: torchvision separates groups by shifting boxes, which in float32 would round the boxes of
            late images
        by hundredths of a pixel and make a result depend on its place in the batch.
        """
        kept: Tensor = batched_nms(boxes.double(), scores.double(), group, self.nms_iou)
        return kept.sort().values


def class_scores(predictions: Predictions) -> tuple[Float[Tensor, "B P"], Int64[Tensor, "B P"]]:
    """Score (objectness × greatest class probability) and label of each prior; ties to the lowest class."""
    logits, labels = predictions.logits.float().max(2)
    if predictions.quality is None:
        return logits.sigmoid(), labels
    scores = predictions.quality.float().sigmoid()
    if predictions.logits.shape[2] == 1:
        return scores, labels
    return scores * logits.sigmoid(), labels


def box_limits(
    size: tuple[int, int] | Int64[Tensor, "_ 2"], boxes: Float[Tensor, "B P 4"]
) -> Float[Tensor, "B 4"]:
    """The greatest x1, y1, x2, y2 in each picture: its width, height, width, height.

    Args:
        size: (height, width) in pixels, of all pictures or of each.
        boxes: of the pictures.

    Raises:
        ValueError: the sizes are those of another number of pictures.
    """
    sizes = size if isinstance(size, Tensor) else torch.tensor([size]).expand(len(boxes), 2)
    if sizes.shape != (len(boxes), 2):
        raise ValueError(
            f"expected (height, width) of each of {len(boxes)} pictures, got sizes {tuple(sizes.shape)}"
        )
    return sizes.flip(1).repeat(1, 2).to(boxes.device, torch.float32)


def clip(
    boxes: Float[Tensor, "*N 4"], limits: Float[Tensor, "*#N 4"]
) -> tuple[Float[Tensor, "*N 4"], Bool[Tensor, "*N"]]:
    """Boxes clipped to `box_limits`, and which of them were finite and had an extent before."""
    clipped = torch.minimum(boxes.clamp(min=0), limits)
    return clipped, torch.isfinite(boxes).all(-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1)


def best_first(
    scores: Float[Tensor, "N"], group: Int64[Tensor, "N"], topk: int, groups: int
) -> Int64[Tensor, "K"]:
    """Positions of the `topk` best of each group, ordered by group, then by score; ties keep their order."""
    order = scores.sort(descending=True, stable=True).indices
    order = order[group[order].sort(stable=True).indices]
    return order[rank_in_group(group[order], groups) < topk]


def rank_in_group(group: Int64[Tensor, "K"], groups: int) -> Int64[Tensor, "K"]:
    """Position of each element among those of its group; `group` is ascending."""
    counts = torch.bincount(group, minlength=groups)
    return torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
