"""Merging of multi-scale detections against the vectors of the original PAA: `softvote*.npz`."""

from pathlib import Path

import pytest
import torch
from dense_case import DenseCase, parametrize_cases

from boxmatch.box_voting import merge_by_voting
from boxmatch.structures import Detections


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run per file."""
    parametrize_cases(metafunc, "paa", pattern="softvote*.npz")


@pytest.mark.parametrize(("kind", "soft_min_score"), [("vote", None), ("soft_vote", 0.05)])
def test_voted_boxes_equal_the_original(dense_file: Path, kind: str, soft_min_score: float | None):
    case = DenseCase.read(dense_file)
    # Boxes of the file have inclusive edges; the plain box is one pixel larger, in and out.
    inclusive = torch.tensor([0.0, 0.0, 1.0, 1.0])
    given = Detections(case.array("boxes") + inclusive, case.array("scores"), case.array("labels"))
    found = merge_by_voting(given, soft_min_score=soft_min_score)
    expected_scores = case.array(f"{kind}_scores")
    expected_labels = case.array(f"{kind}_labels")
    expected_boxes = case.array(f"{kind}_boxes") + inclusive
    assert len(found) == len(expected_scores)
    # The file goes class by class, and within a class by score in the voted case.
    for label in expected_labels.unique():
        own, theirs = found.labels == label, expected_labels == label
        order = expected_scores[theirs].sort(descending=True, stable=True).indices
        torch.testing.assert_close(found.scores[own], expected_scores[theirs][order], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes[own], expected_boxes[theirs][order], atol=1e-2, rtol=0)
