"""A detector as one graph: pictures in, boxes out, with sizes that may stay open."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.export.finish import finish
from boxmatch.models.dense_head import LevelMaps
from boxmatch.models.detector import Detector
from boxmatch.models.faster_rcnn import FasterRCNN
from boxmatch.postprocess import PostProcess
from boxmatch.prior_set import Priors
from boxmatch.priors import AnchorGrid
from boxmatch.structures import Level


class ExportedDetector(nn.Module):
    """The forward pass of a detector with nothing in it that a graph cannot hold.

    Args:
        detector: with its weights; put into evaluation mode.
        nms: go on to detections by the detector's own post-processing.

    Raises:
        ValueError: the detector has two stages, or a post-processing of its own kind; no graph is known for
            either.
    """

    def __init__(self, detector: Detector, *, nms: bool) -> None:
        super().__init__()
        if isinstance(detector, FasterRCNN):
            raise ValueError(
                "expected a detector of one stage, got FasterRCNN, whose second stage reads the proposals of "
                "the first and is not exported; export a DenseDetector or a YOLO"
            )
        if nms and type(detector.postprocess) not in (PostProcess, DensePostProcess):
            raise ValueError(
                "expected PostProcess or DensePostProcess, which a graph is known for, got "
                f"{type(detector.postprocess).__name__}; export without NMS"
            )
        self.detector = detector.eval()
        self.nms = nms

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Boxes (B, P, 4) and scores (B, P, C); or boxes, scores, labels and image of each detection.

        Args:
            images: (B, 3, H, W), RGB, uint8.
        """
        detector = self.detector
        maps = detector.network(detector.normalise(images))
        logits, deltas, quality = detector.flatten(maps)
        priors = _priors(detector.grid, [_map_size(level) for level in maps], logits)
        boxes = detector.decode(deltas, priors)
        if not self.nms:
            return boxes, fused_scores(detector, logits, quality)
        height, width = images.shape[2:]
        limits = torch.cat([boxes.new_full((1,), side) for side in (width, height, width, height)])
        lengths = [level.height * level.width * level.anchors for level in priors.levels]
        return finish(detector.postprocess, boxes, logits, quality, limits, lengths)


def fused_scores(detector: Detector, logits: Tensor, quality: Tensor | None) -> Tensor:
    """The score of every prior and class (B, P, C), as the detector's post-processing counts it."""
    probability = logits.sigmoid()
    postprocess = detector.postprocess
    if isinstance(postprocess, DensePostProcess):
        if quality is None or postprocess.fusion == "class":
            return probability
        product = probability * quality.sigmoid()[..., None]
        return product.sqrt() if postprocess.fusion == "sqrt" else product
    if quality is None:
        return probability
    objectness = quality.sigmoid()[..., None]
    return objectness if logits.shape[2] == 1 else objectness * probability


def _map_size(level: Any) -> tuple[int, int]:
    """Height and width of the maps of one level, as the families of this package lay them out."""
    if isinstance(level, LevelMaps):
        return level.logits.shape[2], level.logits.shape[3]
    return level.shape[2], level.shape[3]


def _priors(grid: AnchorGrid, sizes: Sequence[tuple[int, int]], like: Tensor) -> Priors:
    """Priors for maps whose sizes may be open; without an index, for decoding only."""
    levels = tuple(
        Level(height, width, stride, len(anchors))
        for (height, width), stride, anchors in zip(sizes, grid.strides, grid.anchors, strict=True)
    )
    centers, wh, stride, number = [], [], [], []
    for position, (level, anchors) in enumerate(zip(levels, grid.anchors, strict=True)):
        rows, columns = (torch.arange(length, device=like.device) for length in (level.height, level.width))
        y, x = ((cells + grid.center) * level.stride + grid.shift for cells in (rows, columns))
        y, x = torch.meshgrid(y, x, indexing="ij")
        center = torch.stack((x, y), dim=-1)[:, :, None].expand(-1, -1, level.anchors, -1).reshape(-1, 2)
        size = like.new_tensor(anchors).expand(level.height, level.width, -1, -1).reshape(-1, 2)
        centers.append(center)
        wh.append(size)
        stride.append(torch.full_like(center[:, 0], level.stride))
        number.append(torch.full_like(center[:, 0], position, dtype=torch.int64))
    middle, extent = torch.cat(centers), torch.cat(wh)
    boxes = torch.cat((middle - extent / 2, middle + extent / 2), dim=1)
    return Priors(boxes, middle, torch.cat(number), torch.cat(stride), levels, extent)
