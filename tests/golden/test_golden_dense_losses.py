"""Losses, gradients and detections of ATSS, Dynamic ATSS and PAA against the originals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dense_case import DenseCase, system_folder

from boxmatch.assign import ATSS, PAA, Assigner, DynamicATSS
from boxmatch.dense_postprocess import DensePostProcess
from boxmatch.losses.dense import DenseLoss
from boxmatch.structures import Detections

ASSIGNERS: dict[str, Assigner] = {
    "atss": ATSS(inside_margin=0.51),
    "dynamic_atss": DynamicATSS(inside_margin=0.51),
    "paa": PAA(inclusive_pixels=True),
}
LOSSES = {
    "atss": DenseLoss(inclusive_pixels=True),
    "dynamic_atss": DenseLoss(
        class_loss="qfl", class_target="iou", quality_target="iou", inclusive_pixels=True
    ),
    "paa": DenseLoss(quality_target="iou", box_weight=1.3, quality_weight=0.5, inclusive_pixels=True),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per case file of the three systems; a folder that lacks a kind of file fails."""
    values = []
    for system in ASSIGNERS:
        folder = system_folder(metafunc.config, system)
        files = sorted(folder.glob("case*.npz")) or [folder / "case*.npz"]
        absent = pytest.mark.skip(f"no folder {folder}; say where with --golden-dir")
        marks = [] if folder.is_dir() else [absent]
        values += [pytest.param(file, id=f"{system}-{file.stem}", marks=marks) for file in files]
    metafunc.parametrize("dense_file", values)


@pytest.fixture
def case(dense_file: Path) -> DenseCase:
    return DenseCase.read(dense_file)


def test_losses_and_their_gradients_per_level_equal_the_original(case):
    heads = case.heads(requires_grad=True)
    predictions = case.predictions(heads)
    assignment = ASSIGNERS[case.system](case.priors, case.targets, predictions)
    terms = LOSSES[case.system](case.priors, case.targets, predictions, assignment, case.coder)
    for name, expected in case.losses().items():
        assert terms[name].item() == pytest.approx(expected, rel=1e-5, abs=1e-7), name
    sum(terms.values()).backward()
    for kind, total in (("l1", lambda grad: grad.abs().sum()), ("sum", lambda grad: grad.sum())):
        for head, expected in case.gradients(kind).items():
            levels = torch.stack([total(level.grad.double()) for level in heads[head]])
            size = case.gradients("l1")[head].double()
            difference = (levels - expected.double()).abs()
            assert (difference <= 2e-5 * size + 1e-7).all(), (kind, head)


def test_detections_before_and_after_suppression_equal_the_original(case):
    predictions = case.predictions()
    levels = case.priors.levels
    names = {"det": None} if case.system != "paa" else {"det_novote": None, "det_vote": 0.025}
    for name, sigma in names.items():
        postprocess = DensePostProcess(vote_sigma=sigma, inclusive_pixels=True)
        for image, expected in enumerate(case.detections(name)):
            size = tuple(int(side) for side in case.arrays["image_sizes"][image])
            alone = type(predictions)(
                *(None if p is None else p[image : image + 1] for p in vars(predictions).values())
            )
            (found,) = postprocess(alone, size, levels)
            assert_same(found, expected)
    everything = DensePostProcess(nms_iou=1.0, max_detections=100_000, inclusive_pixels=True)
    for image, expected in enumerate(case.detections("prenms")):
        size = tuple(int(side) for side in case.arrays["image_sizes"][image])
        alone = type(predictions)(
            *(None if p is None else p[image : image + 1] for p in vars(predictions).values())
        )
        (found,) = everything(alone, size, levels)
        assert_same(found, expected)


def assert_same(found: Detections, expected: Detections) -> None:
    """The same set: each expected box has one of ours of its label within 0.01 px and 1e-5 of the score."""
    assert len(found) == len(expected)
    taken = np.zeros(len(found), dtype=bool)
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        near = (
            (found.labels == label)
            & ((found.scores - score).abs() <= 1e-5)
            & ((found.boxes - box).abs().amax(1) <= 1e-2)
            & torch.from_numpy(~taken)
        )
        assert near.any(), (box, score, label)
        taken[int(near.nonzero()[0])] = True
