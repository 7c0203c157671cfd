"""Where the candidates of a box are cut, given any mixture, even one that no fit is known to give."""

import pytest
import torch
from torch import Tensor

from boxmatch.assign import boundary
from boxmatch.assign.boundary import split_by_mixture
from boxmatch.assign.mixture import Mixture


def split(
    monkeypatch: pytest.MonkeyPatch, component: list[int], density: list[float], kind: str
) -> tuple[list[int], list[int]]:
    """Positive and ignored places of ascending costs 0, 1, … with the given components and densities."""

    def given(values: Tensor, valid: Tensor) -> Mixture:
        two = torch.zeros(1, 2, dtype=torch.float64)
        return Mixture(
            two,
            two,
            two,
            torch.tensor([component]),
            torch.tensor([density], dtype=torch.float64),
            torch.ones(1, dtype=torch.int64),
            torch.ones(1, dtype=torch.bool),
        )

    monkeypatch.setattr(boundary, "fit_mixture", given)
    costs = torch.arange(float(len(component)))
    found = split_by_mixture(costs, torch.zeros(len(costs), dtype=torch.int64), 1, len(costs), kind)
    return places(found.positive), places(found.ignored)


def places(mask: Tensor) -> list[int]:
    """Where a mask holds."""
    return mask.nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("kind", ["a", "b", "c", "d"])
def test_without_foreground_all_are_positive(monkeypatch, kind):
    assert split(monkeypatch, [1, 1, 1], [0.1, 0.5, 0.2], kind) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("kind", "positive", "ignored"),
    [("a", [0, 2, 3], []), ("b", [0, 1, 2], []), ("c", [0, 1, 2], []), ("d", [0, 1, 2], [3])],
)
def test_background_before_the_peak_is_positive_too(monkeypatch, kind, positive, ignored):
    # Of the background the densest stands before the peak: (b) has nothing between the two.
    found = split(monkeypatch, [0, 1, 0, 0, 1], [0.1, 0.9, 0.5, 0.3, 0.2], kind)
    assert found == (positive, ignored)


def test_without_background_b_ignores_all_after_the_peak(monkeypatch):
    assert split(monkeypatch, [0, 0, 0, 0], [0.1, 0.5, 0.4, 0.2], "b") == ([0, 1], [2, 3])


def test_of_equal_densities_the_first_is_the_peak(monkeypatch):
    component, density = [0, 0, 0, 1, 1, 1], [0.1, 0.5, 0.5, 0.2, 0.7, 0.7]
    assert split(monkeypatch, component, density, "c") == ([0, 1], [])
    assert split(monkeypatch, component, density, "b") == ([0, 1], [2, 3])


def test_boxes_are_cut_each_for_itself_and_in_the_order_of_the_candidates():
    cost = torch.tensor([2.0, 0.1, 0.3, 2.2, 0.5, 0.32, 7.0, 2.25, 2.3, 0.1, 0.3, 0.32, 0.5, 2.0, 2.2])
    gt = torch.tensor([0] * 6 + [2] + [4] * 8)
    found = split_by_mixture(cost, gt, 6, 45, "d")
    # One candidate is positive whatever it costs, and boxes without any do no harm.
    assert places(found.positive) == [1, 2, 6, 9, 10]
    assert places(found.ignored) == [4, 5, 11, 12]
    assert found.limit.tolist() == pytest.approx([0.3] * 6 + [7.0] + [0.3] * 8)


def test_no_candidates_are_fine():
    none = torch.zeros(0)
    found = split_by_mixture(none, none.long(), 3, 9, "b")
    assert len(found.positive) == len(found.ignored) == len(found.limit) == 0
