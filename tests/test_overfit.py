"""End to end: a few pictures learned by heart, from files to average precision, with a plain loop."""

from pathlib import Path

import pytest
import torch
from by_heart import learn_by_heart

from boxmatch import YOLO, AllGrid, Assigner, DataModule, NearbyGrid, SingleGrid, TaskAligned, YOLOLoss
from boxmatch.data.shapes import draw_shapes

ONE_PER_CELL = [[(16.0, 16.0)], [(32.0, 32.0)], [(64.0, 64.0)]]


def detector(assigner: Assigner, class_names: tuple[str, ...]) -> YOLO:
    """A narrow network with the loss of our recipe."""
    score = "constant" if isinstance(assigner, TaskAligned) else "iou"
    loss = YOLOLoss(
        iou_loss_type="ciou",
        focal_loss_gamma=0.0,
        assign_conf_method=score,
        objectness_average="positives",
        box_average="all",
        lambda_coord=2.0,
        sum_classes=True,
    )
    return YOLO(
        class_names,
        channel_sparsity=0.25,
        head_bias=True,
        prior_probability=0.01,
        anchors=ONE_PER_CELL,
        method="nearby_grid" if isinstance(assigner, TaskAligned) else None,
        wh_decode="sigmoid4",
        assigner=assigner,
        loss=loss,
    )


def precision_by_heart(assigner: Assigner, folder: Path, steps: int) -> float:
    """AP@0.5 on the four pictures it was trained on."""
    torch.manual_seed(0)
    draw_shapes(folder, train=4, val=1, size=96, seed=3)
    data = DataModule(str(folder), image_size=96)
    network = detector(assigner, data.class_names)
    return learn_by_heart(network, data, pictures=4, steps=steps, rate=3e-3, clip=None)


def test_the_task_aligned_method_learns_four_pictures_by_heart(tmp_path):
    assert precision_by_heart(TaskAligned(), tmp_path, steps=120) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("assigner", [SingleGrid, NearbyGrid, AllGrid])
def test_the_grid_methods_learn_four_pictures_by_heart(assigner, tmp_path):
    assert precision_by_heart(assigner(), tmp_path, steps=400) >= 0.9
