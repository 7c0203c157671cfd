"""The post-processing as a graph: the same detections as `PostProcess` and `DensePostProcess`.

Those work on lists of candidates, whose lengths no graph knows. Here every (prior, class) keeps its place and
what takes no part has a score below 0; only after suppression is there a list.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.export.suppression import NO_SCORE, non_max_suppression
from boxmatch.postprocess import PostProcess

_VOTE_LEAST_IOU = 0.01  # as in `dense_postprocess`


def finish(
    postprocess: PostProcess,
    boxes: Tensor,
    logits: Tensor,
    quality: Tensor | None,
    limits: Tensor,
    lengths: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores, labels and image of each detection, by image, best first.

    Args:
        postprocess: its options.
        boxes: (B, P, 4), decoded.
        logits: (B, P, C).
        quality: (B, P), or None for heads without that branch.
        limits: (4,) width, height, width, height of the pictures.
        lengths: priors of each level.
    """
    clipped = torch.minimum(boxes.clamp(min=0), limits)
    if isinstance(postprocess, DensePostProcess):
        scores = _dense_scores(postprocess, boxes, logits, quality, lengths)
        if postprocess.inclusive_pixels:
            low = torch.minimum(clipped[..., :2], limits[:2] - 1)
            clipped = torch.cat((low, clipped[..., 2:].clamp(min=1)), dim=2)
    else:
        scores = _one_label_scores(postprocess, boxes, logits, quality)
    # A box that is not finite takes no part, but must not be read as a number either.
    clipped = torch.where(torch.isfinite(clipped), clipped, 0.0)
    if isinstance(postprocess, DensePostProcess) and postprocess.class_agnostic_nms:
        image, label, prior = _across_classes(clipped, scores, postprocess.nms_iou)
    else:
        selected = non_max_suppression(clipped, scores.transpose(1, 2).contiguous(), postprocess.nms_iou)
        image, label, prior = selected.unbind(1)
    found_scores, image, label, prior = _best_first(scores, image, label, prior)
    kept = _within_limit(postprocess, found_scores, image, scores.shape[0])
    found_scores, image, label, prior = (part[kept] for part in (found_scores, image, label, prior))
    found = clipped[image, prior]
    if isinstance(postprocess, DensePostProcess) and postprocess.vote_sigma is not None:
        found = _vote(clipped, scores, found, image, label, postprocess.vote_sigma)
    return found, found_scores, label, image


def _dense_scores(
    postprocess: DensePostProcess,
    boxes: Tensor,
    logits: Tensor,
    quality: Tensor | None,
    lengths: Sequence[int],
) -> Tensor:
    """Score of each prior and class (B, P, C); below 0 for those that do not enter suppression."""
    probability = logits.sigmoid()
    scores = probability
    if postprocess.fusion != "class":
        if quality is None:
            raise ValueError(f"fusion={postprocess.fusion!r} reads a quality branch, got None; take 'class'")
        scores = probability * quality.sigmoid()[..., None]
        scores = scores.sqrt() if postprocess.fusion == "sqrt" else scores
    compared = scores if postprocess.threshold_on == "score" else probability
    above = compared > postprocess.score_threshold
    if postprocess.single_label_per_point:
        best = logits.max(2, keepdim=True).indices
        above = above & (torch.arange(logits.shape[2], device=logits.device) == best)
    scores = torch.where(above, scores, NO_SCORE)
    levels = scores.split(list(lengths), dim=1)
    scores = torch.cat([_topk_only(level, postprocess.pre_nms_topk) for level in levels], dim=1)
    valid = torch.isfinite(boxes).all(2) & (boxes[..., 2:] >= boxes[..., :2]).all(2)
    return torch.where(valid[..., None], scores, NO_SCORE)


def _across_classes(boxes: Tensor, scores: Tensor, nms_iou: float) -> tuple[Tensor, Tensor, Tensor]:
    """Image, class and prior of what survives where boxes of all classes suppress each other."""
    classes = scores.shape[2]
    every = boxes.repeat_interleave(classes, dim=1)
    selected = non_max_suppression(every, scores.flatten(1)[:, None].contiguous(), nms_iou)
    image, _, entry = selected.unbind(1)
    return image, entry % classes, entry // classes


def _one_label_scores(
    postprocess: PostProcess, boxes: Tensor, logits: Tensor, quality: Tensor | None
) -> Tensor:
    """The same where each prior has its best class only."""
    best, label = logits.max(2)
    if quality is None:
        score = best.sigmoid()
    else:
        score = quality.sigmoid() if logits.shape[2] == 1 else quality.sigmoid() * best.sigmoid()
    valid = torch.isfinite(boxes).all(2) & (boxes[..., 2:] > boxes[..., :2]).all(2)
    score = torch.where(valid & (score > postprocess.score_threshold), score, NO_SCORE)
    score = _topk_only(score[..., None], postprocess.pre_nms_topk)
    own = torch.arange(logits.shape[2], device=logits.device) == label[..., None]
    return torch.where(own, score, NO_SCORE)


def _topk_only(scores: Tensor, topk: int) -> Tensor:
    """Scores (B, P, C) of the best of each image; the others take no part."""
    flat = scores.flatten(1)
    # As many entries more as are asked for: a map may have fewer.
    longer = F.pad(flat, (0, topk), value=NO_SCORE)
    chosen = torch.zeros_like(longer).scatter(1, longer.topk(topk, dim=1).indices, 1.0)
    chosen = chosen[:, : flat.shape[1]] > 0
    return torch.where(chosen, flat, NO_SCORE).reshape(scores.shape)


def _best_first(
    scores: Tensor, image: Tensor, label: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score, image, class and prior by image, then score; equal scores by prior, then class."""
    place = (image * scores.shape[1] + prior) * scores.shape[2] + label
    place = place.sort(stable=True).values
    found = scores.reshape(-1)[place]
    order = found.sort(descending=True, stable=True).indices
    place, found = place[order], found[order]
    image = place // (scores.shape[1] * scores.shape[2])
    order = image.sort(stable=True).indices
    place, found, image = place[order], found[order], image[order]
    prior = place // scores.shape[2] - image * scores.shape[1]
    return found, image, place % scores.shape[2], prior


def _within_limit(postprocess: PostProcess, scores: Tensor, image: Tensor, images: int) -> Tensor:
    """Positions of the best of each image; `DensePostProcess` also keeps those that tie with the last."""
    own = image[:, None] == torch.arange(images, device=image.device)  # (N, B)
    counts = own.long().sum(0)
    first = counts.cumsum(0) - counts
    rank = torch.arange(image.shape[0], device=image.device) - first[image]
    if not isinstance(postprocess, DensePostProcess):
        return (rank < postprocess.max_detections).nonzero().squeeze(1)
    last = own & (rank == postprocess.max_detections - 1)[:, None]
    floor = torch.where(last, scores[:, None], 0.0).sum(0)
    return (scores >= floor[image]).nonzero().squeeze(1)


def _vote(boxes: Tensor, scores: Tensor, found: Tensor, image: Tensor, label: Tensor, sigma: float) -> Tensor:
    """Mean of all boxes of the class that overlap, as `dense_postprocess.vote`; detections × priors."""
    others = boxes[image]  # (N, P, 4)
    own_scores = scores.transpose(1, 2)[image, label]  # (N, P)
    low = torch.maximum(found[:, None, :2], others[..., :2])
    high = torch.minimum(found[:, None, 2:], others[..., 2:])
    inter = (high - low).clamp(min=0).prod(2)
    area = (found[:, 2:] - found[:, :2]).prod(1)[:, None]
    union = area + (others[..., 2:] - others[..., :2]).prod(2) - inter
    iou = inter / union.clamp(min=torch.finfo(union.dtype).tiny)
    weight = own_scores * torch.exp(-(1 - iou).square() / sigma)
    weight = torch.where((iou > _VOTE_LEAST_IOU) & (own_scores >= 0), weight, 0.0)
    total = weight.sum(1, keepdim=True)
    return torch.where(total > 0, (others * weight[..., None]).sum(1) / total, found)
