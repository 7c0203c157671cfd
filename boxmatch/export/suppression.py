"""Non-maximum suppression as one operator of the graph, which ONNX has and torch's own graphs have not."""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

NO_SCORE = -1.0
"""Stands where an entry (class, prior) takes no part; scores are 0 or more."""


@torch.library.custom_op("boxmatch::non_max_suppression", mutates_args=())
def non_max_suppression(boxes: Tensor, scores: Tensor, nms_iou: float) -> Tensor:
    """Image, class and prior (N, 3) of the entries that survive.

    Boxes of different images or classes do not meet.

    Args:
        boxes: (B, P, 4), xyxy.
        scores: (B, C, P); entries with less than 0 take no part.
        nms_iou: of two boxes with an IoU above it, the lower score is dropped.
    """
    entries = (scores >= 0).nonzero()
    image, label, prior = entries.unbind(1)
    group = image * scores.shape[1] + label
    # float64, because the groups are separated by shifting boxes.
    kept = batched_nms(boxes[image, prior].double(), scores[image, label, prior].double(), group, nms_iou)
    return entries[kept.sort().values]


@non_max_suppression.register_fake
def _(boxes: Tensor, scores: Tensor, nms_iou: float) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((count, 3), dtype=torch.int64)


def onnx_translations() -> dict[Any, Any]:
    """What stands for the operator, and for stable sorting, which torch does not translate, in ONNX."""
    from onnxscript import opset19

    op: Any = opset19

    def as_onnx(boxes: Any, scores: Any, nms_iou: float) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[2**31 - 1]),
            op.Constant(value_floats=[nms_iou]),
            op.Constant(value_floats=[NO_SCORE / 2]),
        )

    def stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK puts equal values in the order of their positions. One axis: its shape is its length.
        return op.TopK(values, op.Shape(values), axis=dim, largest=int(descending), sorted=1)

    return {
        torch.ops.boxmatch.non_max_suppression.default: as_onnx,
        torch.ops.aten.sort.stable: stable_sort,
    }
