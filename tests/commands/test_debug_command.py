"""`boxmatch debug`: counts and pictures of the assignment."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typed_commands import TINY

import boxmatch
import boxmatch.assign
from boxmatch.cli import main


def assigners() -> list[str]:
    """Names of all methods."""
    base = boxmatch.assign.Assigner
    public = {name: getattr(boxmatch.assign, name) for name in boxmatch.assign.__all__}
    return [
        name
        for name, value in public.items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]


# What these two cannot do without.
NEEDED = {
    "AutoAssign": ["--detector.assigner.num_classes=3"],
    "RandomAssigner": ["--detector.assigner.like=TaskAligned"],
}


@pytest.mark.parametrize("assigner", assigners())
def test_debug_draws_and_counts_for_every_assigner(assigner: str, shapes: Path, tmp_path: Path, capsys):
    options = [
        f"--detector.assigner={assigner}",
        *NEEDED.get(assigner, []),
        "--detector.method=nearby_grid",
        "--pictures=1",
        "--batches=1",
    ]
    assert main(["debug", "--data.root", str(shapes), "--output", str(tmp_path), *TINY, *options]) == 0
    text = capsys.readouterr().out
    report = json.loads((tmp_path / "assignment.json").read_text(encoding="utf-8"))
    assert report["assigner"] == assigner
    assert report["pictures"] == 8
    boxes = [box for box in report["boxes"] if not box["ignore"]]
    everything = report["per_class"][-1]
    assert everything["positives"] == sum(box["positives"] for box in boxes) == sum(everything["per_level"])
    assert everything["without_positive"] == sum(box["positives"] == 0 for box in boxes)
    rows = list(csv.DictReader((tmp_path / "boxes.csv").open(newline="", encoding="utf-8")))
    assert [int(row["positives"]) for row in rows] == [box["positives"] for box in report["boxes"]]
    picture = np.asarray(Image.open(tmp_path / "pictures" / "batch0_picture00.png").convert("RGB"))
    assert picture.std() > 10
    assert "stride 16" in text


def test_debug_names_boxes_that_teach_nothing(shapes: Path, tmp_path: Path, capsys):
    options = ["--detector.assigner.match_iou_thres", "0.8", "--pictures", "0"]
    assert main(["debug", "--data.root", str(shapes), "--output", str(tmp_path), *TINY, *options]) == 0
    assert "boxes teach nothing" in capsys.readouterr().out


@pytest.mark.parametrize("assigner", ["DualWeight", "AutoAssign"])
def test_debug_draws_the_weights_of_soft_assigners(assigner: str, shapes: Path, tmp_path: Path):
    options = [
        f"--detector.assigner={assigner}",
        *NEEDED.get(assigner, []),
        "--detector.method=nearby_grid",
        "--pictures=1",
        "--explain=1",
    ]
    assert main(["debug", "--data.root", str(shapes), "--output", str(tmp_path), *TINY, *options]) == 0
    (picture,) = (tmp_path / "pictures").glob("batch0_picture00_box*_weights.png")
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 10


def test_an_assigner_of_ones_own_is_named_by_its_dotted_path(
    shapes: Path, tmp_path: Path, monkeypatch, capsys
):
    (tmp_path / "my_rules.py").write_text(
        "from boxmatch import NearbyGrid\n\n\nclass MyGrid(NearbyGrid):\n    '''Mine.'''\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = [
        "--data.root",
        str(shapes),
        "--detector.assigner",
        "my_rules.MyGrid",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["debug", *arguments, *TINY, "--pictures", "0"]) == 0
    assert "MyGrid on 8 pictures" in capsys.readouterr().out
