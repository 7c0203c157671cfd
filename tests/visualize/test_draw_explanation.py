"""Why a box got the priors it got."""

import numpy as np
import pytest
from pictures import as_array, grey

from boxmatch import AnchorGrid, NearbyGrid, Priors, Targets
from boxmatch.structures import Assignment
from boxmatch.visualize import draw_explanation
from boxmatch.visualize.palette import ALARM

TARGETS = Targets.from_lists([[[4, 4, 20, 24], [6, 6, 24, 24]]], [[0, 1]])


def ask(**options: float) -> tuple[Assignment, Priors]:
    grid = AnchorGrid((((10.0, 13.0), (16.0, 16.0)), ((60.0, 60.0),)), (8, 16))([(8, 8), (4, 4)])
    return NearbyGrid(**options)(grid, TARGETS, explain=True), grid


def markers(axis) -> int:
    return sum(len(c.get_offsets()) for c in axis.collections)


def test_every_candidate_of_the_box_has_a_marker_on_the_panel_of_its_level():
    assignment, priors = ask()
    assert assignment.explanation is not None
    figure = draw_explanation(grey(), TARGETS, assignment, priors, 0, title="a box")
    story = assignment.explanation.of(0)
    level = priors.level[story.pairs.prior]
    assert [markers(axis) for axis in figure.axes] == [int((level == n).sum()) for n in range(2)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    counts = story.counts()
    assert f"learns this box ({counts['kept']})" in legend
    assert f"learns another box ({counts['lost_to_gt']})" in legend
    assert counts["lost_to_gt"] > 0


def test_the_headline_tells_the_threshold():
    assignment, priors = ask(match_iou_thres=0.25)
    figure = draw_explanation(grey(), TARGETS, assignment, priors, 1)
    assert figure.get_suptitle().endswith("threshold 0.25")


def test_the_picture_is_not_blank():
    assignment, priors = ask()
    drawn = as_array(draw_explanation(grey(), TARGETS, assignment, priors, 0))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_an_assignment_without_an_explanation_and_a_row_that_does_not_exist_are_refused():
    assignment, priors = ask()
    with pytest.raises(ValueError, match=r"box in 0 \.\. 1, got 2"):
        draw_explanation(grey(), TARGETS, assignment, priors, 2)
    with pytest.raises(ValueError, match="explain=True"):
        draw_explanation(grey(), TARGETS, NearbyGrid()(priors, TARGETS), priors, 0)


def test_a_box_that_no_prior_learns_is_drawn_in_the_color_of_alarm():
    assignment, priors = ask(match_iou_thres=0.9)
    assert assignment.stats().total == 0
    figure = draw_explanation(grey(), TARGETS, assignment, priors, 0)
    (box,) = figure.axes[0].patches
    assert np.allclose(box.get_edgecolor()[:3], np.array(ALARM) / 255)
    assert "the box, without any positive" in [text.get_text() for text in figure.legends[0].get_texts()]
