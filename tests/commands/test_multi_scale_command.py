"""`--multi_scale` of `boxmatch val` and `boxmatch predict`."""

import json
from pathlib import Path

import pytest
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.commands.errors import UsageError
from boxmatch.commands.multi_scale import read_scales
from boxmatch.multi_scale import published_scales


def test_val_at_several_sizes_measures_all_pictures_and_records_the_sizes(run_folder: Path, tmp_path: Path):
    arguments = ["--multi_scale", "64,96", "--soft_vote", "--output", str(tmp_path)]
    assert main(["val", "--run", str(run_folder), *arguments]) == 0
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert result["pictures"] == 6
    assert result["multi_scale"] == "64,96"
    assert result["soft_vote"] is True
    assert 0 <= result["map"] <= 1


def test_predict_at_several_sizes_writes_boxes_in_the_files_own_pixels(
    run_folder: Path, shapes: Path, tmp_path: Path, capsys
):
    pictures = sorted(shapes.rglob("*.jpg"))[:3] or sorted(shapes.rglob("*.png"))[:3]
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    sources = [*map(str, pictures), str(tmp_path / "broken.jpg")]
    arguments = ["--multi_scale", "64,128", "--min_score", "0.001", "--no_pictures", "--batch_size", "2"]
    output = tmp_path / "out"
    assert main(["predict", *sources, "--run", str(run_folder), "--output", str(output), *arguments]) == 3
    assert "broken.jpg" in capsys.readouterr().err
    results = json.loads((output / "detections.json").read_text(encoding="utf-8"))
    assert results
    for result in results:
        x, y, width, height = result["bbox"]
        assert x >= 0 <= y
        assert x + width <= 96.01 >= y + height


def test_scales_are_numbers_or_the_published_ones():
    assert read_scales("published") == published_scales()
    assert read_scales("320,416") == [320, 416]
    for text in ("", "big", "320;416", "0"):
        with pytest.raises(UsageError, match="320,416,512"):
            read_scales(text)


def test_options_that_contradict_each_other_are_refused(run_folder: Path, capsys):
    run = ["--run", str(run_folder)]
    code, message = failing(capsys, "predict", "a.jpg", *run, "--multi_scale", "64", "--image_size", "64")
    assert (code, "--image_size" in message) == (2, True)
    for command in (["predict", "a.jpg"], ["val"]):
        code, message = failing(capsys, *command, *run, "--soft_vote")
        assert (code, "--multi_scale" in message) == (2, True)
