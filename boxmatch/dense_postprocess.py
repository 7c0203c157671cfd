"""From the predictions of dense detectors to detections: per-level top-k, NMS per class, score voting."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import pair_iou, take_boxes
from .postprocess import PostProcess, best_first, box_limits, clip, rank_in_group
from .segments import concatenated_ranges, segment_lengths
from .spatial.pieces import in_pieces
from .structures import Detections, Level, Predictions

Fusion = Literal["sqrt", "product", "class"]
Threshold = Literal["class", "score"]

_VOTE_LEAST_IOU = 0.01  # PAA: boxes of one class with no more overlap than this have no vote


@dataclass(frozen=True)
class DensePostProcess(PostProcess):
    """Every class above the threshold is a detection of its own; the best of each level enter NMS.

    With p the class probability and q that of the quality branch, the score is sqrt(p q) ("sqrt": ATSS,
    Dynamic ATSS, PAA), p q ("product": FCOS, DW) or p ("class": heads without that branch). The order of the
    steps: threshold, best `pre_nms_topk` per level, clip, NMS per class, truncation, voting.

    Args:
        score_threshold: entries above it are kept.
        nms_iou: of two boxes of one class with an IoU above it, the lower score is dropped.
        max_detections: per image, after NMS; those that tie with the last one stay.
        pre_nms_topk: entries (prior, class) per level.
        fusion: how the quality enters the score.
        threshold_on: whether `score_threshold` is compared with the class probability alone or with the
            score.
        vote_sigma: score voting: each kept box becomes the mean of all boxes of its class that entered NMS
            and overlap it, weighted by score · exp(-(1 - IoU)² / vote_sigma); 0.025 in PAA. None leaves it
            out.
        inclusive_pixels: a box beyond the border is clipped to the last pixel instead of to a line, as where
            boxes count their right and lower edges as pixels (ATSS, PAA).
        class_agnostic_nms: boxes of all classes suppress each other; for detections of several classes on one
            object. Voting stays among boxes of one class.
        single_label_per_point: of each prior only the class of the highest logit can be detected, of equal
            ones the first.

    Raises:
        ValueError: an option is out of range.

    Source: ATSS and PAA (maskrcnn-benchmark), DW (MMDetection); Kim & Lee 2020 (PAA), sec. 3.4, for voting.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.6
    max_detections: int = 100
    pre_nms_topk: int = 1000
    fusion: Fusion = "sqrt"
    threshold_on: Threshold = "class"
    vote_sigma: float | None = None
    inclusive_pixels: bool = False
    class_agnostic_nms: bool = False
    single_label_per_point: bool = False

    @property
    def shown_score(self) -> float:
        """As for other scores; the root of a product of two probabilities is greater than the product."""
        return super().shown_score ** (0.5 if self.fusion == "sqrt" else 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion not in get_args(Fusion) or self.threshold_on not in get_args(Threshold):
            raise ValueError(
                f"DensePostProcess: expected fusion in {get_args(Fusion)} and threshold_on in "
                f"{get_args(Threshold)}, got {self.fusion!r} and {self.threshold_on!r}"
            )
        if self.vote_sigma is not None and not self.vote_sigma > 0:
            raise ValueError(f"DensePostProcess: expected vote_sigma above 0, got {self.vote_sigma}")

    @torch.no_grad()
    def __call__(
        self,
        predictions: Predictions,
        size: tuple[int, int] | Int64[Tensor, "B 2"],
        levels: tuple[Level, ...] = (),
    ) -> list[Detections]:
        """Detections of each image, best first; equal scores by prior, then class.

        Args:
            predictions: with decoded boxes (xyxy in pixels).
            size: (height, width) in pixels, of the input or of each picture in it; boxes are clipped to it.
            levels: of the priors; without them all priors count as one level.

        Raises:
            ValueError: predictions hold no boxes, or no quality although `fusion` asks for it; the sizes are
                those of another number of pictures.
        """
        if predictions.boxes is None:
            raise ValueError("DensePostProcess: expected decoded boxes in predictions.boxes, got None")
        images, _, classes = predictions.logits.shape
        with torch.autocast(predictions.boxes.device.type, enabled=False):
            image, prior, label, scores = self._candidates(predictions, levels)
            decoded = predictions.boxes[image, prior].float()
            limits = box_limits(size, predictions.boxes)[image]
            boxes, _ = clip(decoded, limits)
            if self.inclusive_pixels:
                boxes = _at_least_a_pixel(boxes, limits)
            # A side may be 0 (distances after a ReLU); the originals keep such boxes.
            valid = torch.isfinite(decoded).all(1) & (decoded[:, 2:] >= decoded[:, :2]).all(1)
            rows = valid.nonzero().squeeze(1)
            image, label, scores, boxes = image[rows], label[rows], scores[rows], boxes[rows]
            group = image * classes + label
            kept = self._nms(boxes, scores, image if self.class_agnostic_nms else group)
            kept = kept[best_first(scores[kept], image[kept], len(kept), images)]
            kept = kept[self._within_limit(scores[kept], image[kept], images)]
            found = boxes[kept]
            if self.vote_sigma is not None:
                found = vote(boxes, scores, group, kept, self.vote_sigma, images * classes)
            counts = torch.bincount(image[kept], minlength=images).tolist()
            parts = (found.split(counts), scores[kept].split(counts), label[kept].split(counts))
            return [Detections(*part) for part in zip(*parts, strict=True)]

    def _candidates(
        self, predictions: Predictions, levels: tuple[Level, ...]
    ) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "N"], Int64[Tensor, "N"], Float[Tensor, "N"]]:
        """Image, prior, class and score of the best entries of each level, ordered by image, then prior."""
        images, priors, _ = predictions.logits.shape
        probability = predictions.logits.float().sigmoid()
        quality = None
        if self.fusion != "class":
            if predictions.quality is None:
                raise ValueError(
                    f"DensePostProcess: fusion={self.fusion!r} reads a quality branch, got None; take 'class'"
                )
            quality = predictions.quality.float().sigmoid()
        compared = probability
        if self.threshold_on == "score" and quality is not None:
            compared = self._score(probability, quality[..., None])
        above = compared > self.score_threshold
        if self.single_label_per_point:
            best = predictions.logits.max(2, keepdim=True).indices
            above &= torch.zeros_like(above).scatter_(2, best, True)
        image, prior, label = above.nonzero().unbind(1)
        scores = probability[image, prior, label]
        if quality is not None:
            scores = self._score(scores, quality[image, prior])
        ends = torch.tensor([len(level) for level in levels] or [priors], device=image.device).cumsum(0)
        group = image * len(ends) + torch.bucketize(prior, ends, right=True)
        chosen = best_first(scores, group, self.pre_nms_topk, images * len(ends)).sort().values
        return image[chosen], prior[chosen], label[chosen], scores[chosen]

    def _score(self, probability: Tensor, quality: Tensor) -> Tensor:
        product = probability * quality
        return product.sqrt() if self.fusion == "sqrt" else product

    def _within_limit(self, scores: Tensor, image: Tensor, images: int) -> Int64[Tensor, "K"]:
        """Positions of the best of each image, those included that tie with the last; best first."""
        last = rank_in_group(image, images) == self.max_detections - 1
        floor = scores.new_full((images,), -torch.inf)
        floor[image[last]] = scores[last]
        return (scores >= floor[image]).nonzero().squeeze(1)


def _at_least_a_pixel(boxes: Float[Tensor, "N 4"], limits: Float[Tensor, "N 4"]) -> Float[Tensor, "N 4"]:
    low = torch.minimum(boxes[:, :2], limits[:, :2] - 1)
    return torch.cat((low, boxes[:, 2:].clamp(min=1)), dim=1)


def vote(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    group: Int64[Tensor, "N"],
    kept: Int64[Tensor, "K"],
    sigma: float,
    groups: int,
) -> Float[Tensor, "K 4"]:
    """Each kept box as the weighted mean of all boxes of its group that overlap it.

    The weight of a box is score · exp(-(1 - IoU)² / sigma), for an IoU of more than 0.01. A box without a
    vote stays as it is.

    Args:
        boxes: all that entered NMS, xyxy.
        scores: of each.
        group: image and class of each; boxes of different groups do not meet.
        kept: positions of those that survived.
        groups: number of groups.

    Source: Kim & Lee 2020 (PAA), eq. 10.
    """
    order = group.sort(stable=True).indices
    lengths = segment_lengths(group, groups)
    begins = lengths.cumsum(0) - lengths
    mine = group[kept]

    def part(piece: slice) -> tuple[Tensor, ...]:
        length = lengths[mine[piece]]
        voter = order[concatenated_ranges(begins[mine[piece]], length)]
        owner = torch.repeat_interleave(length, output_size=len(voter))
        iou = pair_iou(take_boxes(boxes[kept[piece]], owner), take_boxes(boxes, voter))
        weight = scores[voter] * torch.exp(-(1 - iou).square() / sigma) * (iou > _VOTE_LEAST_IOU)
        sums = boxes.new_zeros(len(length), 5)
        votes = torch.cat((boxes[voter] * weight[:, None], weight[:, None]), dim=1)
        sums.index_add_(0, owner, votes)
        return (sums,)

    (sums,) = in_pieces(lengths[mine], part)
    # A box without extent overlaps nothing, not even itself, and stays as it is.
    return torch.where(sums[:, 4:] > 0, sums[:, :4] / sums[:, 4:], boxes[kept])
