"""`boxmatch predict`: sizes, names and faults of files; what is written."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.commands.prediction_files import safe_cell


@pytest.fixture(scope="module")
def prediction(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, Path]:
    """Exit code, pictures and output of a prediction over sizes, names and faults."""
    pictures = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, (width, height) in {"a.jpg": (200, 150), "=sum.png": (97, 301), "b.JPG": (200, 150)}.items():
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(pictures / name)
    (pictures / "sub").mkdir()
    Image.new("L", (64, 64), 200).save(pictures / "sub" / "a.jpg")
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (pictures / "notes.txt").write_text("not a picture", encoding="utf-8")
    output = tmp_path_factory.mktemp("prediction")
    sources = [str(pictures), str(pictures / "sub" / "*.jpg"), str(pictures / "gone.png")]
    thresholds = ["--min_score", "0.01", "--max_detections", "5", "--batch_size", "2"]
    code = main(["predict", *sources, "--run", str(run_folder), "--output", str(output), *thresholds])
    return code, pictures, output


def test_predict_names_unreadable_files_and_does_the_others(
    prediction, run_folder: Path, tmp_path: Path, capsys
):
    code, pictures, output = prediction
    assert code == 3
    images = json.loads((output / "images.json").read_text(encoding="utf-8"))["images"]
    assert {Path(image["file_name"]).name for image in images} == {"a.jpg", "b.JPG", "=sum.png"}
    assert len(images) == 4
    assert (
        main(["predict", str(pictures / "broken.jpg"), "--run", str(run_folder), "--output", str(tmp_path)])
        == 3
    )
    assert "broken.jpg" in capsys.readouterr().err


def test_predicted_boxes_lie_inside_their_files(prediction):
    _, _, output = prediction
    images = json.loads((output / "images.json").read_text(encoding="utf-8"))
    results = json.loads((output / "detections.json").read_text(encoding="utf-8"))
    assert results
    sizes = {image["id"]: Image.open(image["file_name"]).size for image in images["images"]}
    for result in results:
        x, y, width, height = result["bbox"]
        assert x >= 0 <= y
        assert width > 0 < height
        assert x + width <= sizes[result["image_id"]][0] + 0.02
        assert y + height <= sizes[result["image_id"]][1] + 0.02
        assert result["category_id"] in {category["id"] for category in images["categories"]}
    assert [result["image_id"] for result in results] == sorted(result["image_id"] for result in results)


def test_predicted_csv_agrees_with_the_json_and_no_cell_is_a_formula(prediction):
    _, _, output = prediction
    results = json.loads((output / "detections.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((output / "detections.csv").open(newline="", encoding="utf-8")))
    assert len(rows) == len(results)
    for row, result in zip(rows, results):
        assert float(row["score"]) == pytest.approx(result["score"], abs=1e-5)
        assert float(row["x2"]) == pytest.approx(result["bbox"][0] + result["bbox"][2], abs=0.02)
    assert [safe_cell(text) for text in ("=1+1", "+1", "-1", "@x", "x=1")] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@x",
        "x=1",
    ]


def test_predicted_pictures_have_one_file_each_even_with_equal_names(prediction):
    _, _, output = prediction
    images = json.loads((output / "images.json").read_text(encoding="utf-8"))["images"]
    names = {image["picture"] for image in images}
    assert len(names) == 4
    assert {path.relative_to(output).as_posix() for path in (output / "pictures").iterdir()} == names


def test_predict_sees_pictures_as_the_evaluation_does(run_folder: Path, shapes: Path):
    from boxmatch import DataModule
    from boxmatch.commands.prediction import read_input

    dataset = DataModule(str(shapes), image_size=96).dataset("val")
    canvas = read_input(dataset.annotations.file(0), 96).canvas
    assert torch.equal(canvas.permute(2, 0, 1), dataset.sample(0, 0).image)


def test_predict_with_wrong_sources_or_values_says_what_is_wrong(run_folder: Path, tmp_path: Path, capsys):
    run = ["--run", str(run_folder)]
    for arguments, code, said in (
        ([str(tmp_path), *run], 3, "has no pictures"),
        ([str(tmp_path / "*.jpg"), *run], 3, "has no pictures"),
        (["x.jpg"], 2, "--run RUN_DIR"),
        (["x.jpg", *run, "--min_score", "2"], 2, "[0, 1]"),
        (["x.jpg", *run, "--batch_size", "0"], 2, "1 or more"),
        (["x.jpg", *run, "--batch_size", "many"], 2, "invalid int"),
        (["x.jpg", *run, "--device", "cuda:99"], 6, "cuda:99"),
        (["x.jpg", *run, "--device", "tpux"], 2, "expected cpu"),
    ):
        assert failing(capsys, "predict", *arguments)[0] == code
        assert said in failing(capsys, "predict", *arguments)[1]


def test_a_batch_gives_what_single_pictures_give(run_folder: Path, shapes: Path):
    from boxmatch.commands.prediction import PictureStream, predict_all
    from boxmatch.commands.run_folders import load

    files = sorted((shapes / "VOC2007" / "JPEGImages").iterdir())[:5]
    detector = load(run_folder / "best.safetensors", score_threshold=0.01)
    single, batched = (dict(predict_all(detector, PictureStream(files, 96, size))) for size in (1, 4))
    for file in files:
        assert torch.allclose(single[file].scores, batched[file].scores, atol=1e-4)


def test_wide_pictures_are_padded_to_multiples_of_32_and_boxes_come_back(tmp_path: Path):
    from boxmatch.commands.prediction import read_input
    from boxmatch.structures import Detections

    Image.new("RGB", (500, 200), (255, 255, 255)).save(tmp_path / "wide.png")
    picture = read_input(tmp_path / "wide.png", 96)
    assert picture.canvas.shape == (64, 96, 3)
    white = (picture.canvas.float().mean(-1) > 128).nonzero()
    (top, left), (bottom, right) = white.min(0).values.tolist(), (white.max(0).values + 1).tolist()
    whole = Detections(
        torch.tensor([[left, top, right, bottom]]).float(), torch.ones(1), torch.zeros(1, dtype=torch.int64)
    )
    assert torch.allclose(picture.restore(whole).boxes, torch.tensor([[0.0, 0, 500, 200]]), atol=1e-3)


def test_a_file_name_that_is_no_text_and_one_with_spaces_are_predicted(run_folder: Path, tmp_path: Path):
    names = [tmp_path / os.fsdecode(b"\xff broken.png"), tmp_path / "größe 1.png"]
    for name in names:
        Image.new("RGB", (64, 64)).save(name)
    output = tmp_path / "out"
    sources = [str(name) for name in names]
    assert (
        main(["predict", *sources, "--run", str(run_folder), "--output", str(output), "--min_score", "0"])
        == 0
    )
    images = json.loads((output / "images.json").read_text(encoding="utf-8"))["images"]
    assert [Path(image["file_name"]) for image in images] == names
    assert b"\xff broken.png" in (output / "detections.csv").read_bytes()


def test_pictures_are_sized_as_the_run_sized_them(tmp_path):
    from boxmatch.commands.prediction import read_input, trained_rule
    from boxmatch.data.resize import ShortSide

    Image.new("RGB", (90, 60), (255, 255, 255)).save(tmp_path / "wide.png")
    (tmp_path / "config.yaml").write_text("data: {resize: {short_side: 40, long_side: 50, group: true}}")
    rule = trained_rule(tmp_path / "best.safetensors")
    assert rule == ShortSide(40, 50)
    picture = read_input(tmp_path / "wide.png", rule)
    assert picture.canvas.shape == (64, 64, 3) and picture.offset == (0, 0)
    assert (picture.canvas[:33, :49] == 255).all() and not picture.canvas[33:].any()
    assert picture.scale == (49 / 90, 33 / 60)
    assert picture.size == (33, 49)  # boxes are clipped to the picture, not to its canvas
