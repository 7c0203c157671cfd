"""Which inputs each assigner is timed on, and beside what."""

from collections.abc import Callable
from dataclasses import dataclass

from boxmatch.assign import (
    ATSS,
    OTA,
    PAA,
    AllGrid,
    Assigner,
    AutoAssign,
    DualWeight,
    DynamicATSS,
    DynamicSoftLabel,
    FCOSRegion,
    GridMaxIoU,
    Hungarian,
    MaxIoU,
    NearbyGrid,
    RandomAssigner,
    SimOTA,
    SingleGrid,
    TaskAligned,
    Uniform,
    YOLOv3,
    YOLOv5Ratio,
)
from boxmatch.bench import dense_predictions, dense_priors
from boxmatch.bench.dense_picture import Dense
from boxmatch.bench.peers import Peer, torchvision_fcos, torchvision_retinanet
from boxmatch.bench.standard_inputs import CLASSES


@dataclass(frozen=True)
class Entry:
    """An assigner in the benchmark.

    Args:
        make: with the published settings.
        kinds: names of its inputs, see `standard_inputs.KINDS`.
        dense: its dense form; None where there is none.
        note: what a reader of the ratio must know, or why there is no dense form.
        quality: whether its predictions have a quality branch, as those of its published network do.
        peer: published code that is installed with us, timed in the same run.
    """

    make: Callable[[], Assigner]
    kinds: tuple[str, ...]
    dense: Dense | None = None
    note: str = ""
    quality: bool = False
    peer: Peer | None = None


_CELL_BY_CELL = (
    "published code goes from box to cell too; the dense form shows what comparing all priors costs"
)

ASSIGNERS: dict[str, Entry] = {
    "single_grid": Entry(SingleGrid, ("yolo416", "yolo25200"), dense_priors.single_grid, note=_CELL_BY_CELL),
    "nearby_grid": Entry(NearbyGrid, ("yolo416", "yolo25200"), dense_priors.nearby_grid, note=_CELL_BY_CELL),
    "all_grid": Entry(AllGrid, ("yolo416", "yolo25200"), dense_priors.all_grid),
    "yolov3": Entry(YOLOv3, ("yolo25200",), dense_priors.yolov3),
    "yolov5_ratio": Entry(YOLOv5Ratio, ("yolo25200",), dense_priors.yolov5_ratio, note=_CELL_BY_CELL),
    "grid_max_iou": Entry(GridMaxIoU, ("yolo25200",), dense_priors.grid_max_iou),
    "max_iou": Entry(MaxIoU.retinanet, ("retina201k",), dense_priors.max_iou, peer=torchvision_retinanet),
    "fcos_region": Entry(FCOSRegion, ("atss22k",), dense_priors.fcos_region, peer=torchvision_fcos),
    "atss": Entry(ATSS, ("atss22k",), dense_priors.atss),
    "dynamic_atss": Entry(DynamicATSS, ("atss22k",), dense_predictions.dynamic_atss),
    "paa": Entry(PAA, ("atss22k",), dense_predictions.paa),
    "dual_weight": Entry(DualWeight, ("atss22k",), dense_predictions.dual_weight, quality=True),
    "auto_assign": Entry(
        lambda: AutoAssign(CLASSES), ("atss22k",), dense_predictions.auto_assign, quality=True
    ),
    "ota": Entry(OTA, ("atss22k",), dense_predictions.ota),
    "task_aligned": Entry(TaskAligned, ("yolo8400", "atss22k"), dense_predictions.task_aligned),
    "sim_ota": Entry(SimOTA, ("yolo8400",), dense_predictions.sim_ota, quality=True),
    "dynamic_soft_label": Entry(DynamicSoftLabel, ("yolo8400",), dense_predictions.dynamic_soft_label),
    "uniform": Entry(Uniform, ("yolof",), dense_priors.uniform),
    "hungarian": Entry(
        lambda: Hungarian(image_size=(640, 640)),
        ("queries300",),
        note="the solver wants the matrix of all pairs: the dense form is the method",
    ),
    "random_assigner": Entry(
        lambda: RandomAssigner(ATSS()), ("atss22k",), note="a control of ours, there is no published code"
    ),
}
"""By name, in the order of the table."""
