"""A folder of golden files of the simple YOLO holds every file and array its README names."""

from pathlib import Path

import numpy as np
import pytest
from yolo_case import YOLOCase

SIMILARITIES = ("iou", "ciou", "diou", "giou", "siou")
GAMMAS = ("0.0", "1.5", "2.0", "3.5")


def expected_case_arrays(case: YOLOCase) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a case file."""
    arrays, values, batch = case.arrays, 5 + case.classes, case.config["batch_size"]
    boxes, rows = len(arrays["bboxes"]), len(arrays["dec_rows"])
    shapes: dict[str, tuple[int, ...]] = {
        "bboxes": (boxes, 5),
        "classes": (boxes, 2),
        "pred_check": (3, 5),
        "int_total": (),
        "int_layers": (3, 3),
        "int_grad_sum": (3, values),
        "int_grad_abs": (3, values),
        "dec_rows": (rows,),
        "dec": (batch, rows, values),
        "dec_abs": (values,),
    }
    # The reference wrote nothing where it crashed, and no owners where there is no box.
    crashed = "ref_assign" in case.config["stats"]
    if not crashed:
        shapes |= {"ref_total": (), "ref_parts": (3,)}
    for layer, stride in enumerate(case.config["strides"]):
        grid, positives = case.side // stride, len(arrays[f"pos_{layer}"])
        pairs = int(arrays[f"cand_ptr_{layer}"][-1])
        shapes |= {
            f"pos_{layer}": (positives, 4),
            f"cand_ptr_{layer}": (positives + 1,),
            f"cand_gt_{layer}": (pairs,),
            f"cand_iou_{layer}": (pairs,),
            f"max_gt_{layer}": (positives,),
            f"int_conf_target_{layer}": (positives,),
        }
        if not crashed and boxes:
            shapes |= {f"ref_gt_{layer}": (positives,), f"ref_cls_{layer}": (positives, case.classes)}
        if case.config["pred_source"] == "dense":
            shapes[f"pred_{layer}"] = (batch, 3, grid, grid, values)
    return shapes


def test_a_case_holds_exactly_the_documented_arrays(case_file: Path) -> None:
    case = YOLOCase.read(case_file)
    assert {name: array.shape for name, array in case.arrays.items()} == expected_case_arrays(case)


def test_an_nms_file_holds_exactly_the_documented_arrays(nms_file: Path) -> None:
    case = YOLOCase.read(nms_file)
    batch, values = case.config["batch_size"], 5 + case.classes
    grids = [case.side // stride for stride in case.config["strides"]]
    expected = {f"pred_{layer}": (batch, 3, grid, grid, values) for layer, grid in enumerate(grids)}
    expected |= {"det_ptr": (batch + 1,), "det": (int(case.arrays["det_ptr"][-1]), 6)}
    assert {name: array.shape for name, array in case.arrays.items()} == expected


def test_the_units_hold_exactly_the_documented_arrays(golden_yolo: Path) -> None:
    with np.load(golden_yolo / "units.npz") as units:
        shapes = {name: units[name].shape for name in units.files}
    boxes, logits = shapes["iou_pred"][0], shapes["bce_logit"][0]
    expected: dict[str, tuple[int, ...]] = {"iou_pred": (boxes, 4), "iou_target": (boxes, 4)}
    expected |= {f"loss_{kind}": (boxes,) for kind in SIMILARITIES}
    expected |= {f"grad_{kind}": (boxes, 4) for kind in SIMILARITIES}
    expected |= {"bce_logit": (logits,), "bce_label": (logits,)}
    expected |= {f"focal_{gamma}": (logits,) for gamma in GAMMAS}
    expected |= {f"focal_grad_{gamma}": (logits,) for gamma in GAMMAS}
    assert shapes == expected


@pytest.mark.parametrize("kind", ["case", "nms", "units"])
def test_the_folder_holds_every_documented_kind_of_file(golden_yolo: Path, kind: str) -> None:
    assert list(golden_yolo.glob(f"{kind}*.npz")), f"no {kind}*.npz in {golden_yolo}"
