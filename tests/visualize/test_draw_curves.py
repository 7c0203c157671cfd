"""Curves from the files of a run."""

import csv
import json
from pathlib import Path

import pytest
from pictures import as_array

from boxmatch.visualize import (
    draw_compared_runs,
    draw_curves,
    draw_pr_curves,
)


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


def evaluated(folder: Path, precision: list[float]) -> Path:
    rows = [{"epoch": n, "map": value / 2, "map_50": value} for n, value in enumerate(precision)]
    return write_run(folder, rows)


def test_compared_runs_keep_their_colour_and_stand_best_first(tmp_path: Path):
    weak, strong = evaluated(tmp_path / "weak", [0.1, 0.2]), evaluated(tmp_path / "strong", [0.1, 0.4])
    figure = draw_compared_runs([weak, strong / "metrics.csv"])
    for axis, best in zip(figure.axes, ("strong 0.400", "strong 0.200"), strict=True):
        assert axis.get_legend().get_texts()[0].get_text() == best
        assert axis.lines[0].get_xdata().tolist() == [1, 2]
    assert figure.axes[0].lines[0].get_color() == figure.axes[1].lines[0].get_color()
    named = draw_compared_runs([weak, strong], ["ATSS", "PAA"])
    assert named.axes[0].get_legend().get_texts()[0].get_text() == "PAA 0.400"


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path):
    run = evaluated(tmp_path / "run", [0.1])
    with pytest.raises(ValueError, match="got none"):
        draw_compared_runs([])
    with pytest.raises(ValueError, match="one name per run"):
        draw_compared_runs([run], ["a", "b"])
    bare = write_run(tmp_path / "bare", [{"epoch": 0, "map": "", "map_50": ""}])
    with pytest.raises(ValueError, match="no evaluation yet"):
        draw_compared_runs([run, bare])
