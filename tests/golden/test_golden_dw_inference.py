"""DW's inference against the original: what enters NMS, and what comes out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.distance_coder import DistanceCoder
from boxmatch.priors import PointGrid, Priors
from boxmatch.structures import Detections, Predictions


@pytest.fixture(scope="module")
def arrays(golden_dir: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden_dir / "dw" / "i1_inference.npz"))


def inputs(arrays: dict[str, np.ndarray]) -> tuple[Predictions, Priors]:
    """The stored head outputs, decoded."""
    strides = tuple(int(stride) for stride in arrays["strides"])
    priors = PointGrid(strides)([(int(h), int(w)) for h, w in arrays["level_hw"]])
    deltas = torch.as_tensor(arrays["reg_dist_x8"]).float() / 8
    predictions = Predictions(
        logits=torch.as_tensor(arrays["cls_logit_x16"]).float() / 16,
        deltas=deltas,
        boxes=DistanceCoder().decode_boxes(deltas, priors),
        quality=torch.as_tensor(arrays["obj_logit_x16"]).float().squeeze(2) / 16,
    )
    return predictions, priors


def detect(arrays: dict[str, np.ndarray], **options: float) -> Detections:
    predictions, priors = inputs(arrays)
    height, width = (int(side) for side in arrays["image_hw"])
    stored = {
        "score_threshold": float(arrays["score_thr"]),
        "nms_iou": float(arrays["nms_iou"]),
        "max_detections": int(arrays["max_per_img"]),
        "pre_nms_topk": int(arrays["nms_pre"]),
    }
    postprocess = DensePostProcess(fusion="product", threshold_on="score", **(stored | options))
    (found,) = postprocess(predictions, (height, width), priors.levels)
    return found


def test_what_enters_suppression_is_what_the_original_lets_in(arrays):
    found = detect(arrays, nms_iou=1.0, max_detections=10**6)
    assert len(found) == len(arrays["pre_nms_scores"])
    ours = rows(found.boxes / torch.as_tensor(arrays["scale_factor"]), found.scores, found.labels)
    theirs = rows(*(arrays[f"pre_nms_{part}"] for part in ("boxes", "scores", "labels")))
    distance = np.abs(ours[:, None] - theirs[None]).max(2)
    # Logits are stored in sixteenths: two entries of one level tie for the last place, and the original's
    # sort took the other one.
    odd_ours, odd_theirs = ours[distance.min(1) > 1e-2], theirs[distance.min(0) > 1e-2]
    assert len(odd_ours) == len(odd_theirs) <= 1
    assert np.allclose(odd_ours[:, 1], odd_theirs[:, 1], atol=1e-6)


def rows(boxes, scores, labels) -> np.ndarray:
    """Label, score, box of each detection, sorted by label, score, left edge."""
    parts = (np.asarray(part, dtype=np.float64) for part in (labels, scores, boxes))
    table = np.column_stack(list(parts))
    return table[np.lexsort((table[:, 2], table[:, 1].round(5), table[:, 0]))]


def test_suppression_of_what_the_original_let_in_leaves_what_the_original_found(arrays):
    boxes, scores, labels = (
        torch.as_tensor(arrays[f"pre_nms_{part}"]) for part in ("boxes", "scores", "labels")
    )
    # One prior per entry, with the one class it stands for.
    logits = torch.full((1, len(scores), int(labels.max()) + 1), -100.0, dtype=torch.float64)
    logits[0, torch.arange(len(scores)), labels.long()] = torch.logit(scores.double())
    predictions = Predictions(
        logits=logits.float(), deltas=torch.zeros(1, len(scores), 4), boxes=boxes[None].clone()
    )
    postprocess = DensePostProcess(fusion="class", nms_iou=float(arrays["nms_iou"]))
    (found,) = postprocess(predictions, (10**4, 10**4))
    ours = rows(found.boxes, found.scores, found.labels)
    theirs = rows(*(arrays[f"det_{part}"] for part in ("boxes", "scores", "labels")))
    assert ours.shape == theirs.shape
    assert np.array_equal(ours[:, 0], theirs[:, 0])
    assert np.allclose(ours[:, 1], theirs[:, 1], atol=1e-5)
    assert np.allclose(ours[:, 2:], theirs[:, 2:], atol=1e-2)


def test_detections_are_best_first_and_no_more_than_wanted(arrays):
    found = detect(arrays)
    assert (found.scores.diff() <= 0).all()
    assert len(detect(arrays, max_detections=5)) == 5
    assert abs(len(found) - len(arrays["det_scores"])) <= 1  # the tie of the first test
