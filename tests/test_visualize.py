"""Pictures: what must be seen on them is there, nothing is clipped, nothing is blank."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxmatch import AllGrid, AnchorGrid, Detections, NearbyGrid, Priors, Targets
from boxmatch.metrics import GroundTruth
from boxmatch.structures import Assignment, Pairs
from boxmatch.visualize import (
    PageEntry,
    draw_assignment,
    draw_curves,
    draw_detections,
    draw_pr_curves,
    draw_predictions_page,
)
from boxmatch.visualize.detections import match_detections
from boxmatch.visualize.labels import Mark, draw_marks
from boxmatch.visualize.palette import ALARM, color, text_color

ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((60.0, 60.0), (90.0, 50.0)))


def grid_priors(size: int = 64) -> Priors:
    return AnchorGrid(ANCHORS, (8, 16))([(size // 8, size // 8), (size // 16, size // 16)])


def grey(width: int = 64, height: int = 64) -> Image.Image:
    return Image.new("RGB", (width, height), (120, 120, 120))


def count_color(picture: Image.Image, wanted: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == np.array(wanted)).all(-1).sum())


def as_array(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def detections(boxes, scores, labels) -> Detections:
    return Detections(
        torch.tensor(boxes).float().reshape(-1, 4), torch.as_tensor(scores), torch.as_tensor(labels)
    )


def truth(boxes, labels, ignore) -> GroundTruth:
    return GroundTruth(
        torch.tensor(boxes).float().reshape(-1, 4), torch.as_tensor(labels), torch.as_tensor(ignore)
    )


def test_first_colors_differ_and_none_is_the_alarm_color():
    colors = [color(index) for index in range(60)]
    assert len(set(colors)) == 60
    assert all(np.abs(np.array(shade) - np.array(ALARM)).sum() > 60 for shade in colors)


def test_letters_are_black_on_light_and_white_on_dark_ground():
    assert text_color((240, 228, 66)) == (0, 0, 0)
    assert text_color((0, 50, 120)) == (255, 255, 255)


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (380, 280, 400, 300), (0, 0, 400, 300), (390, 0, 500, 10)])
def test_a_caption_lies_whole_inside_the_picture(box):
    marked = draw_marks(grey(400, 300), [Mark(box, "platelets 0.87", (0, 158, 115))])
    alone = draw_marks(grey(400, 300), [Mark((150, 150, 250, 250), "platelets 0.87", (0, 158, 115))])
    letters = count_color(alone, (255, 255, 255))
    assert letters > 30
    assert count_color(marked, (255, 255, 255)) == letters


def test_captions_of_near_boxes_do_not_cover_each_other():
    marks = [Mark((100 + 4 * n, 100 + 4 * n, 200, 200), f"cell 0.8{n}", (0, 114, 178)) for n in range(4)]
    one = count_color(draw_marks(grey(400, 300), marks[:1]), (255, 255, 255))
    assert count_color(draw_marks(grey(400, 300), marks), (255, 255, 255)) > 3.5 * one


def test_a_caption_longer_than_the_picture_is_cut_with_an_ellipsis_and_stays_inside():
    marked = draw_marks(
        grey(60, 60), [Mark((5, 5, 40, 40), "a name that is much too long 0.50", (0, 114, 178))]
    )
    assert marked.size == (60, 60)
    assert count_color(marked, (0, 114, 178)) > 200


def test_small_pictures_are_enlarged_so_that_names_can_be_read():
    found = detections([[2.0, 2.0, 30.0, 30.0]], [0.9], [1])
    assert draw_detections(grey(64, 48), found, ["a", "b"]).size == (448, 336)
    assert draw_detections(grey(640, 480), found, ["a", "b"]).size == (640, 480)


def test_detections_have_the_color_of_their_class_and_weak_ones_are_left_out():
    found = detections([[50.0, 50.0, 300.0, 300.0], [320.0, 50.0, 390.0, 300.0]], [0.9, 0.2], [1, 2])
    picture = draw_detections(torch.full((3, 400, 400), 90, dtype=torch.uint8), found, "abc", min_score=0.5)
    assert count_color(picture, color(1)) > 500
    assert count_color(picture, color(2)) == 0


def test_a_picture_without_detections_stays_as_it_was():
    found = detections([], torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert np.array_equal(
        np.asarray(draw_detections(grey(400, 300), found, "ab")), np.asarray(grey(400, 300))
    )


def test_a_box_is_found_once_and_by_the_best_score_of_its_class():
    objects = truth([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1], [False, False])
    found = detections([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    hit, right = match_detections(objects, found)
    assert hit.tolist() == [True, False]
    assert right.tolist() == [True, False, False]


def test_a_detection_inside_an_ignore_region_is_no_false_alarm():
    hit, right = match_detections(
        truth([[0, 0, 50, 50]], [0], [True]),
        detections([[5, 5, 20, 20], [60, 60, 70, 70]], [0.9, 0.8], [0, 0]),
    )
    assert not hit.any()
    assert right.tolist() == [True, False]


def test_page_marks_missed_boxes_on_the_left_and_false_alarms_on_the_right():
    good = PageEntry(
        grey(200, 200),
        truth([[20, 20, 90, 90]], [0], [False]),
        detections([[20, 20, 90, 90]], [0.9], [0]),
        "a",
    )
    bad = PageEntry(
        grey(200, 200),
        truth([[20, 20, 90, 90]], [0], [False]),
        detections([[120, 120, 190, 190]], [0.9], [0]),
        "b",
    )
    assert count_color(draw_predictions_page([good], ["cell"]), ALARM) == 0
    page = np.asarray(draw_predictions_page([bad], ["cell"], width=400))
    red = (page == np.array(ALARM)).all(-1)
    middle = 16 + 402
    assert red[:, :middle].sum() > 100
    assert red[:, middle:].sum() > 100


def test_page_leaves_out_weak_predictions_and_needs_a_picture():
    weak = PageEntry(
        grey(), truth([], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)),
        detections([[10, 10, 50, 50]], [0.1], [0]), "weak",
    )  # fmt: skip
    assert count_color(draw_predictions_page([weak], ["cell"], min_score=0.3), ALARM) == 0
    assert count_color(draw_predictions_page([weak], ["cell"], min_score=0.05), ALARM) > 0
    with pytest.raises(ValueError, match="at least one picture"):
        draw_predictions_page([], ["cell"])


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


def write_run(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_curves_show_losses_precision_and_rate_of_every_epoch(tmp_path: Path):
    common = {"loss_box": 1, "learning_rate": 0.01, "map_50": 0.3}
    rows = [{"epoch": n, "step": 10 * n, "loss": 3 - n, "map": "" if n else 0.1, **common} for n in range(3)]
    figure = draw_curves(write_run(tmp_path / "run", rows))
    loss, precision, rate = figure.axes
    assert [len(line.get_xdata()) for line in loss.lines] == [3, 3]
    assert loss.lines[0].get_ydata().tolist() == [3, 2, 1]
    assert sorted(len(line.get_xdata()) for line in precision.lines) == [1, 3]
    assert rate.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert as_array(figure).std() > 10


@pytest.mark.parametrize("content", [None, "epoch,loss\n"])
def test_a_run_without_epochs_has_no_curves(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="no finished epoch"):
        draw_curves(tmp_path)


def test_pr_curves_have_a_line_per_class_best_first(tmp_path: Path):
    curve = {"recall": [0.0, 0.5, 1.0], "precision": {"weak": [0.3, 0.2, 0.1], "strong": [1.0, 0.9, 0.8]}}
    (tmp_path / "pr_curves.json").write_text(json.dumps({"last": curve, "best": curve}), encoding="utf-8")
    axis = draw_pr_curves(tmp_path).axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["strong 0.900", "weak 0.200"]


def test_eighty_classes_are_cut_to_the_ten_best_and_ten_worst(tmp_path: Path):
    curve = {"recall": [0.0, 1.0], "precision": {f"class {n}": [n / 80, n / 80] for n in range(80)}}
    (tmp_path / "pr_curves.json").write_text(json.dumps({"best": curve}), encoding="utf-8")
    names = [text.get_text() for text in draw_pr_curves(tmp_path).axes[0].get_legend().get_texts()]
    assert len(names) == 20
    assert names[0].startswith("class 79")
    assert names[-1].startswith("class 0")


def test_a_run_that_was_never_evaluated_has_no_pr_curves(tmp_path: Path):
    with pytest.raises(ValueError, match="not been evaluated"):
        draw_pr_curves(tmp_path)
