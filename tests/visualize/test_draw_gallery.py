"""Several assigners side by side."""

import numpy as np
import pytest
from pictures import as_array, grey

from boxmatch import AnchorGrid, NearbyGrid, Priors, SingleGrid, Targets
from boxmatch.visualize import GalleryEntry, draw_gallery
from boxmatch.visualize.palette import ALARM, color

TARGETS = Targets.from_lists([[], [[4, 4, 20, 24], [30, 30, 62, 60]]], [[], [0, 1]])


def priors() -> Priors:
    return AnchorGrid((((10.0, 13.0),), ((60.0, 60.0),)), (8, 16))([(8, 8), (4, 4)])


def entries() -> list[GalleryEntry]:
    grid = priors()
    return [
        GalleryEntry(type(assigner).__name__, assigner(grid, TARGETS), grid)
        for assigner in (SingleGrid(), NearbyGrid(), NearbyGrid(match_iou_thres=0.9))
    ]


def test_each_assigner_has_a_panel_with_its_name_and_its_number_of_positives():
    figure = draw_gallery(grey(), TARGETS, entries(), picture=1, columns=2)
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    counts = [int(entry.assignment.stats().total) for entry in entries()]
    assert titles[0] == f"SingleGrid\n{counts[0]} positives"
    assert titles[1] == f"NearbyGrid\n{counts[1]} positives"
    assert titles[2].endswith("without")
    assert len(figure.axes) == 4


def test_every_positive_is_a_dot_of_its_owner_and_coarse_levels_have_larger_dots():
    entry = entries()[1]
    figure = draw_gallery(grey(), TARGETS, [entry], picture=1)
    (dots,) = [c for c in figure.axes[0].collections if len(c.get_offsets())]
    faces = np.asarray(dots.get_facecolor())[:, :3]
    shown = [int(np.isclose(faces, np.array(color(row)) / 255).all(1).sum()) for row in range(2)]
    assert shown == entry.assignment.stats().positives.tolist()
    assert len(np.unique(dots.get_sizes())) == 2


def test_a_picture_without_boxes_and_one_without_positives_are_drawn():
    assert "0 positives" in draw_gallery(grey(), TARGETS, entries(), picture=0).axes[0].get_title()
    starved = as_array(draw_gallery(grey(), TARGETS, entries()[2:], picture=1))
    assert (np.abs(starved.astype(int) - np.array(ALARM)).max(-1) < 30).sum() > 50


def test_an_empty_gallery_is_refused():
    with pytest.raises(ValueError, match="one entry or more"):
        draw_gallery(grey(), TARGETS, [])
