"""COCO mean average precision of detections against the annotations, both in the file's own pixels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxmatch.data.annotations import Annotations
from boxmatch.structures import Detections

Backend = Literal["faster_coco_eval", "pycocotools"]


@dataclass(frozen=True)
class GroundTruth:
    """What the annotations say about one picture.

    Args:
        boxes: xyxy in the file's pixels.
        labels: class index of each box.
        ignore: crowd or difficult; neither found nor missed, and detections upon it cost nothing.
        area: in square pixels, decides the size class; None takes width × height.
    """

    boxes: Float[Tensor, "G 4"]
    labels: Int64[Tensor, "G"]
    ignore: Bool[Tensor, "G"]
    area: Float[Tensor, "G"] | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """What a mean average precision depends on beside the detections; stored with every number.

    Args:
        backend: the COCO implementation; both give the same numbers.
        max_detections: detections per picture that count, best first; COCO's own is 100.
        score_threshold: least score the detector gave out, None if unknown; a record that filters nothing.
        nms_iou: overlap above which the detector dropped the lower score, likewise.
        coordinates: pixels the boxes are measured in.
    """

    backend: Backend = "faster_coco_eval"
    max_detections: int = 100
    score_threshold: float | None = None
    nms_iou: float | None = None
    coordinates: str = "file pixels, clipped to the picture"

    def __post_init__(self) -> None:
        if self.backend not in ("faster_coco_eval", "pycocotools"):
            raise ValueError(f"backend: expected faster_coco_eval or pycocotools, got {self.backend!r}")
        if self.max_detections < 1:
            raise ValueError(f"max_detections: expected 1 or more, got {self.max_detections}")
        if self.backend == "pycocotools" and self.max_detections != 100:
            # pycocotools looks up the column for 100 by name and answers -1 for any other number.
            raise ValueError(
                f"max_detections: pycocotools summarises 100 only, got {self.max_detections}; "
                "use faster_coco_eval"
            )


def ground_truths(annotations: Annotations, indices: Iterable[int]) -> list[GroundTruth]:
    """What the annotations say about the pictures at these positions, as they stand in the file."""
    truths = []
    for index in indices:
        rows = annotations.rows(index)
        truths.append(
            GroundTruth(
                boxes=torch.from_numpy(annotations.boxes[rows].copy()),
                labels=torch.from_numpy(annotations.labels[rows].astype("int64")),
                ignore=torch.from_numpy(annotations.ignore[rows].copy()),
                area=torch.from_numpy(annotations.areas[rows].copy()),
            )
        )
    return truths


def _number(value: Tensor | float) -> float | None:
    """A plain number; COCO's −1 (nothing to measure) becomes None."""
    number = float(value)
    return None if number < 0 or math.isnan(number) else number


def _mean(values: Tensor) -> float | None:
    """Mean of the entries COCO filled in (−1 marks the others), None where there is none."""
    filled = values[values > -1]
    return float(filled.mean()) if filled.numel() else None


def _as_target(truth: GroundTruth) -> dict[str, Tensor]:
    area = truth.area
    if area is None:
        area = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1)
    return {"boxes": truth.boxes, "labels": truth.labels, "iscrowd": truth.ignore.long(), "area": area}


def _as_prediction(detections: Detections) -> dict[str, Tensor]:
    return {"boxes": detections.boxes, "scores": detections.scores, "labels": detections.labels}


def evaluate(
    detections: Mapping[int, Detections],
    ground_truths: Mapping[int, GroundTruth],
    class_names: Sequence[str],
    settings: EvaluationSettings | None = None,
) -> dict[str, Any]:
    """COCO average precision over 101 recall points and IoU .50 : .95.

    Args:
        detections: by picture; pictures without detections may be absent.
        ground_truths: by picture; all pictures that count, those without boxes included.
        class_names: names in the order of the labels.
        settings: recorded beside the numbers.

    Returns:
        A JSON-able dict: map, map_50, map_75, map_small (area < 32²), map_medium, map_large (> 96²),
        mar (recall at max_detections), per_class {name: {map, map_50, boxes}}, pictures, boxes, settings,
        and curves {recall, precision {name: values at IoU .50}}. None stands where nothing is to be found.

    Raises:
        ValueError: detections for a picture that has no entry in `ground_truths`, or a label without a name.

    Source: Lin et al. 2014 (COCO), cocodataset.org/#detection-eval, through torchmetrics.
    """
    settings = settings or EvaluationSettings()
    _check(detections, ground_truths, len(class_names))
    summary = _summarise(detections, ground_truths, settings)
    classes = [int(c) for c in summary["classes"].reshape(-1)] if ground_truths else []
    precision = summary["precision"][..., 0, -1] if classes else torch.full((10, 101, 0), -1.0)  # (T, R, K)
    column = {label: precision[..., k] for k, label in enumerate(classes)}
    counts = _boxes_per_class(ground_truths, len(class_names))
    nothing = torch.full((10, 101), -1.0)
    per_class = {
        name: {
            "map": _mean(column.get(label, nothing)),
            "map_50": _mean(column.get(label, nothing)[0]),
            "boxes": counts[label],
        }
        for label, name in enumerate(class_names)
    }
    result: dict[str, Any] = {key: _number(summary[key]) for key in _SUMMARY if key in summary}
    result["mar"] = _number(summary.get(f"mar_{settings.max_detections}", -1.0))
    result["per_class"] = per_class
    result["pictures"] = len(ground_truths)
    result["boxes"] = sum(counts)
    result["settings"] = vars(settings).copy()
    result["curves"] = {
        "recall": [round(i / 100, 2) for i in range(101)],
        "precision": {
            name: column[label][0].tolist()
            for label, name in enumerate(class_names)
            if label in column and per_class[name]["map_50"] is not None
        },
    }
    return result


_SUMMARY = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


def _summarise(
    detections: Mapping[int, Detections],
    ground_truths: Mapping[int, GroundTruth],
    settings: EvaluationSettings,
) -> dict[str, Tensor]:
    """What torchmetrics says, with its arrays over threshold × recall × class × size × detections."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_type="bbox",
        # COCO's own numbers: torchmetrics takes them through float32, and a recall of 4 / 5 then misses .8.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        max_detection_thresholds=[1, 10, settings.max_detections],
        extended_summary=True,
        backend=settings.backend,
        # The pictures were gathered before: a second gathering inside would count them once per process.
        distributed_available_fn=lambda: False,
    )
    metric.warn_on_many_detections = False
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    for image_id in sorted(ground_truths):
        metric.update(
            [_as_prediction(detections.get(image_id, nothing))], [_as_target(ground_truths[image_id])]
        )
    if not ground_truths:
        return {key: torch.tensor(-1.0) for key in _SUMMARY}
    return metric.compute()


def _check(
    detections: Mapping[int, Detections], ground_truths: Mapping[int, GroundTruth], num_classes: int
) -> None:
    stray = sorted(set(detections) - set(ground_truths))
    if stray:
        raise ValueError(
            f"picture {stray[0]}: expected ground truth beside detections, got none ({len(stray)} such ones)"
        )
    for kind, labels in (("detection", detections), ("ground truth", ground_truths)):
        for image_id, entry in labels.items():
            if len(entry.labels) and int(entry.labels.max()) >= num_classes:
                raise ValueError(
                    f"picture {image_id}: {kind} has label {int(entry.labels.max())}, expected one below "
                    f"{num_classes}; the class list does not fit the data"
                )


def _boxes_per_class(ground_truths: Mapping[int, GroundTruth], num_classes: int) -> list[int]:
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for truth in ground_truths.values():
        counts += torch.bincount(truth.labels[~truth.ignore], minlength=num_classes)
    return counts.tolist()


class MeanPrecision:
    """Collects detections and ground truths batch by batch, on every process, and evaluates them once.

    A picture seen twice (samplers repeat some to give every process the same number) counts once.

    Args:
        class_names: names in the order of the labels.
        settings: recorded beside the numbers.
    """

    def __init__(self, class_names: Sequence[str], settings: EvaluationSettings | None = None) -> None:
        self.class_names = tuple(class_names)
        self.settings = settings or EvaluationSettings()
        self.reset()

    def reset(self) -> None:
        """Forget all pictures."""
        self.detections: dict[int, Detections] = {}
        self.ground_truths: dict[int, GroundTruth] = {}

    def update(
        self, image_ids: Iterable[int], detections: Sequence[Detections], ground_truths: Sequence[GroundTruth]
    ) -> None:
        """Add one batch: one id, one Detections and one GroundTruth per picture."""
        for image_id, found, truth in zip(image_ids, detections, ground_truths, strict=True):
            self.detections[int(image_id)] = found.to("cpu")
            self.ground_truths[int(image_id)] = truth

    def compute(self) -> dict[str, Any]:
        """What `evaluate` gives for the pictures of all processes; the same on each of them."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return evaluate(self.detections, self.ground_truths, self.class_names, self.settings)
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (self.detections, self.ground_truths))
        answer: list[Any] = [None, None]
        if torch.distributed.get_rank() == 0:
            detections = {k: v for part in parts for k, v in part[0].items()}
            truths = {k: v for part in parts for k, v in part[1].items()}
            try:
                answer[0] = evaluate(detections, truths, self.class_names, self.settings)
            except Exception as error:
                # The other processes wait for the result: they must hear of the failure instead.
                answer[1] = error
        torch.distributed.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]
