"""The assignment over the picture: every positive, every box, every level."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_array, grey

from boxmatch import AllGrid, AnchorGrid, NearbyGrid, Priors, Targets
from boxmatch.structures import Assignment, Pairs
from boxmatch.visualize import (
    draw_assignment,
)
from boxmatch.visualize.palette import ALARM, color

ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((60.0, 60.0), (90.0, 50.0)))


def grid_priors(size: int = 64) -> Priors:
    return AnchorGrid(ANCHORS, (8, 16))([(size // 8, size // 8), (size // 16, size // 16)])


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_every_positive_is_a_marker_in_the_color_of_its_owner():
    targets = Targets.from_lists([[[4, 4, 20, 24], [30, 30, 62, 60]]], [[0, 1]])
    priors = grid_priors()
    assignment = NearbyGrid()(priors, targets)
    figure = draw_assignment(grey(), targets, assignment, priors, class_names=["a", "b"])
    for number, axis in enumerate(figure.axes):
        mine = assignment.level == number
        markers = np.concatenate(
            [np.asarray(c.get_facecolor())[:, :3] for c in axis.collections if len(c.get_facecolor())]
        )
        owners = np.bincount(assignment.pairs.gt[mine].numpy(), minlength=2)
        shades = [np.array(color(row)) / 255 for row in range(2)]
        shown = [int(np.isclose(markers, shade).all(1).sum()) for shade in shades]
        assert shown == owners.tolist()
    assert len(figure.axes) == 2


def test_markers_stand_at_the_cell_centres_within_their_cells():
    targets = Targets.from_lists([[[4, 4, 20, 24]]], [[0]])
    priors = grid_priors()
    assignment = NearbyGrid()(priors, targets)
    figure = draw_assignment(grey(), targets, assignment, priors, level=0)
    centers = priors.centers[assignment.pairs.prior[assignment.level == 0]].numpy()
    drawn = np.concatenate(
        [np.asarray(c.get_offsets()) for c in figure.axes[0].collections if len(c.get_facecolor())]
    )
    distance = np.abs(drawn[:, None] - centers[None]).max(-1).min(1)
    assert distance.max() < 4
    assert np.isin(drawn[:, 1], centers[:, 1]).all()


def test_a_box_without_any_positive_is_marked_in_words_and_in_alarm_color():
    targets = Targets.from_lists([[[4, 4, 20, 24], [40, 0, 41, 60]]], [[0, 1]])
    priors = grid_priors()
    assignment = NearbyGrid(match_iou_thres=0.5)(priors, targets)
    assert assignment.stats().starved.tolist() == [1]
    figure = draw_assignment(grey(), targets, assignment, priors, class_names=["a", "b"])
    assert texts(figure).count("no positive") == 2
    assert (as_array(figure) == np.array(ALARM)).all(-1).sum() > 500


def test_ignore_regions_are_hatched_and_their_priors_crossed_out():
    targets = Targets.from_lists([[[4, 4, 20, 24], [32, 32, 64, 64]]], [[0, 1]], [[False, True]])
    priors = grid_priors()
    assignment = NearbyGrid()(priors, targets)
    figure = draw_assignment(grey(), targets, assignment, priors, class_names=["a", "b"])
    hatched = [patch for axis in figure.axes for patch in axis.patches if patch.get_hatch()]
    assert len(hatched) == 2
    assert "no positive" not in texts(figure)
    crosses = sum(
        len(c.get_offsets()) for axis in figure.axes for c in axis.collections if c.get_zorder() == 4
    )
    assert crosses == int(assignment.ignored[0].sum()) > 0


def test_each_picture_of_a_batch_shows_its_own_boxes_and_an_empty_one_none():
    targets = Targets.from_lists(
        [[[4, 4, 20, 24]], [], [[8, 8, 40, 40], [30, 30, 60, 60]]], [[0], [], [1, 1]]
    )
    priors = grid_priors()
    assignment = AllGrid()(priors, targets)
    shown = [
        len(draw_assignment(grey(), targets, assignment, priors, picture=n, level=0).axes[0].patches)
        for n in range(3)
    ]
    assert shown == [1, 0, 2]


def test_weaker_pairs_of_a_soft_assignment_are_smaller():
    targets = Targets.from_lists([[[4, 4, 40, 40]]], [[0]])
    priors = grid_priors()
    hard = Assignment.hard(
        Pairs(torch.tensor([0, 0]), torch.tensor([0, 2])), targets, len(priors.boxes), levels=priors.levels
    )
    soft = Assignment(
        hard.pairs,
        torch.tensor([1.0, 0.25]),
        hard.score,
        hard.neg_weight,
        hard.ignored,
        targets,
        priors.levels,
    )
    figure = draw_assignment(grey(), targets, soft, priors, level=0)
    sizes = np.concatenate([c.get_sizes() for c in figure.axes[0].collections if len(c.get_facecolor())])
    assert sizes.max() == pytest.approx(4 * sizes.min())


def test_priors_without_a_grid_can_be_drawn():
    targets = Targets.from_lists([[[4, 4, 40, 40]]], [[0]])
    priors = Priors.from_boxes(torch.tensor([[0.0, 0, 30, 30], [10, 10, 50, 50]]))
    assignment = Assignment.hard(Pairs(torch.tensor([0]), torch.tensor([1])), targets, 2)
    figure = draw_assignment(grey(), targets, assignment, priors)
    assert "priors without a grid: 1 positives" in figure.axes[0].get_title()


def test_a_level_that_is_not_there_is_refused():
    targets = Targets.from_lists([[[4, 4, 40, 40]]], [[0]])
    priors = grid_priors()
    with pytest.raises(ValueError, match=r"level in 0 \.\. 1, got 2"):
        draw_assignment(grey(), targets, NearbyGrid()(priors, targets), priors, level=2)


def test_legend_names_anchors_and_styles_and_nothing_reaches_over_the_edge(tmp_path: Path):
    targets = Targets.from_lists([[[4, 4, 20, 24]]], [[0]])
    priors = grid_priors()
    figure = draw_assignment(grey(), targets, NearbyGrid()(priors, targets), priors, title="NearbyGrid")
    words = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert "anchor 0: 10×13 / 60×60" in words
    assert "box without any positive" in words
    picture = as_array(figure)
    assert all((edge == 255).all() for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]))
