"""The assigners that the invariants run over, and small inputs for them; a new method joins by one line."""

from collections.abc import Callable

import torch

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
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Predictions, Targets

# A rule that breaks a property by definition says so itself (`Assigner.conformance_exceptions`).
EVERY_ASSIGNER: dict[str, Callable[[], Assigner]] = {
    "single_grid": SingleGrid,
    "nearby_grid": NearbyGrid,
    "all_grid": AllGrid,
    "single_grid random": lambda: SingleGrid(filter_by_max_iou=False, seed=3),
    "nearby_grid random": lambda: NearbyGrid(filter_by_max_iou=False, seed=3),
    "all_grid random": lambda: AllGrid(filter_by_max_iou=False, seed=3),
    "task_aligned": lambda: TaskAligned(topk=5, similarity="iou"),
    "atss": ATSS,
    "atss giou": lambda: ATSS(topk=4, similarity="giou"),
    "dynamic_atss": DynamicATSS,
    "dynamic_atss std_of_sum": lambda: DynamicATSS(topk=4, threshold="std_of_sum", inside_margin=0.51),
    "task_aligned tood": TaskAligned.tood,
    "task_aligned one-to-one": lambda: TaskAligned(
        topk2=1, min_side=16, max_distance=9, rescue=True, rivals="containing"
    ),
    "sim_ota": SimOTA,
    "sim_ota legacy": lambda: SimOTA(candidates="inside_and_center", legacy_penalty=True),
    "dynamic_soft_label": DynamicSoftLabel,
    "dynamic_soft_label any own": lambda: DynamicSoftLabel(candidates="inside_any", class_cost="own"),
    "ota": OTA,
    "yolov3": YOLOv3,
    "yolov3 best_iou": lambda: YOLOv3(ignore_iou=0.4, collision="best_iou", class_collision="overwrite"),
    "yolov5_ratio": YOLOv5Ratio,
    "yolov5_ratio best_iou": lambda: YOLOv5Ratio(offset=1.0, resolve="best_iou"),
    "uniform": Uniform,
    "uniform nearest": lambda: Uniform(collision="nearest"),
    "fcos_region": FCOSRegion,
    "fcos_region whole box": lambda: FCOSRegion(center_sampling=None),
    "hungarian": Hungarian,
    "hungarian softmax, repeats": lambda: Hungarian(class_cost="softmax", repeats=3),
    "hungarian groups": lambda: Hungarian(groups=2),
    "max_iou": MaxIoU,
    "max_iou keep_argmax": lambda: MaxIoU(0.3, (0.05, 0.2), min_positive=0.1, low_quality="keep_argmax"),
    "max_iou rcnn": MaxIoU.rcnn,
    "max_iou giou": lambda: MaxIoU(0.3, 0.1, similarity="giou"),
    "grid_max_iou": GridMaxIoU,
    "max_iou nwd": lambda: MaxIoU(0.6, 0.4, similarity="nwd"),
    "paa": PAA,
    "paa b": lambda: PAA(topk=4, boundary="b", class_cost="bce", box_cost="l1"),
    "paa d": lambda: PAA(topk=3, positive=0.2, boundary="d", inclusive_pixels=True),
    "random_assigner": lambda: RandomAssigner(ATSS(), seed=2),
    "random_assigner of a soft method": lambda: RandomAssigner(TaskAligned(topk=5)),
    "dual_weight": DualWeight,
    "dual_weight paper, last, top-k": lambda: DualWeight.paper(neg_conflict="last", bag="topk", topk=3),
    "auto_assign": lambda: AutoAssign(12),
    "auto_assign forced": lambda: AutoAssign(12, force_topk=3, neg_conflict="max"),
}

ANCHORS = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)]]


def assign(assigner: Assigner, priors: Priors, targets: Targets) -> Assignment:
    """Call it, with the same predictions for every image where it reads them."""
    if not assigner.uses_predictions:
        return assigner(priors, targets)
    count = len(priors)
    generator = torch.Generator().manual_seed(0)
    shift = 3 * torch.randn((count, 4), generator=generator)
    logits = torch.randn((count, 12), generator=generator)
    device = priors.boxes.device
    predictions = Predictions(
        logits=logits.repeat(targets.batch_size, 1, 1).to(device),
        deltas=torch.zeros(targets.batch_size, count, 4, device=device),
        boxes=(priors.boxes + shift.to(device)).repeat(targets.batch_size, 1, 1),
    )
    return assigner(priors, targets, predictions)


def two_level_priors(height: int = 64, width: int = 96) -> Priors:
    """Strides 8 and 16, three anchors each, not square."""
    return AnchorGrid(ANCHORS, (8, 16))([(height // 8, width // 8), (height // 16, width // 16)], "cpu")


def one_level_priors(rows: int, columns: int, stride: int, anchors: list[tuple[float, float]]) -> Priors:
    """A single grid that can be drawn on paper."""
    return AnchorGrid([anchors], (stride,))([(rows, columns)], "cpu")


def random_boxes(count: int, seed: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """Boxes that may reach over the border, of sides from 2 to 80 px."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand((count, 2), generator=generator) * torch.tensor([width, height])
    side = 2 * 40 ** torch.rand((count, 2), generator=generator)
    return torch.cat([center - side / 2, center + side / 2], 1)


def random_batch(counts: tuple[int, ...] = (7, 0, 12, 3), seed: int = 0) -> Targets:
    """A batch with an image without boxes."""
    return Targets.from_lists(
        boxes=[random_boxes(count, seed + 100 * image) for image, count in enumerate(counts)],
        labels=[torch.arange(count) % 5 for count in counts],
    )
