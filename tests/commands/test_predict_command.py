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
    from boxmatch.commands.prediction import InputRule, read_input

    dataset = DataModule(str(shapes), image_size=96).dataset("val")
    canvas = read_input(dataset.annotations.file(0), InputRule(96)).canvas
    assert torch.equal(canvas.permute(2, 0, 1), dataset.sample(0, 0).image)


def test_predict_sees_padded_pictures_as_the_evaluation_of_its_run_does(shapes: Path, tmp_path: Path):
    from boxmatch import DataModule
    from boxmatch.commands.prediction import input_rule, read_input
    from boxmatch.data.batch import collate
    from boxmatch.data.resize import ShortSide
    from boxmatch.data.transforms import Augment
    from boxmatch.models import YOLO

    color = (123, 116, 103)
    (tmp_path / "config.yaml").write_text(
        "data: {resize: {short_side: 60, long_side: 100}, fill: [123, 116, 103]}"
    )
    rule = input_rule(tmp_path / "best.safetensors", YOLO(["a"], channel_sparsity=0.25))
    assert (rule.side, rule.fill) == (ShortSide(60, 100), color)
    plain = Augment(mosaic_p=0, randscale_p=0)
    dataset = DataModule(str(shapes), resize=ShortSide(60, 100), fill=color, augment=plain).dataset("val")
    seen = read_input(dataset.annotations.file(0), rule)
    batch = collate([dataset.sample(0, 0)], pad_to=32, fill=color)
    assert torch.equal(seen.canvas.permute(2, 0, 1), batch.images[0])
    assert list(seen.size) == batch.picture_sizes[0].tolist() == [60, 60]


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
    from boxmatch.commands.prediction import InputRule, PictureStream, predict_all
    from boxmatch.commands.run_folders import load

    files = sorted((shapes / "VOC2007" / "JPEGImages").iterdir())[:5]
    detector = load(run_folder / "best.safetensors", score_threshold=0.01)
    single, batched = (
        dict(predict_all(detector, PictureStream(files, InputRule(96), size))) for size in (1, 4)
    )
    for file in files:
        assert torch.allclose(single[file].scores, batched[file].scores, atol=1e-4)


def test_wide_pictures_are_padded_to_multiples_of_32_and_boxes_come_back(tmp_path: Path):
    from boxmatch.commands.prediction import InputRule, read_input
    from boxmatch.structures import Detections

    Image.new("RGB", (500, 200), (255, 255, 255)).save(tmp_path / "wide.png")
    picture = read_input(tmp_path / "wide.png", InputRule(96))
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


def test_a_picture_beside_a_rule_lies_in_the_upper_left_corner(tmp_path):
    from boxmatch.commands.prediction import InputRule, read_input
    from boxmatch.data.resize import ShortSide

    Image.new("RGB", (90, 60), (255, 255, 255)).save(tmp_path / "wide.png")
    picture = read_input(tmp_path / "wide.png", InputRule(ShortSide(40, 50)))
    assert picture.canvas.shape == (64, 64, 3) and picture.offset == (0, 0)
    assert (picture.canvas[:33, :49] == 255).all() and not picture.canvas[33:].any()
    assert picture.scale == (49 / 90, 33 / 60)
    assert picture.size == (33, 49)  # boxes are clipped to the picture, not to its canvas


def test_each_family_is_seen_from_its_own_score_on_and_suppressed_as_published(tmp_path):
    from boxmatch.commands.prediction import input_rule, set_thresholds
    from boxmatch.data.resize import ShortSide
    from boxmatch.models import YOLO, dense_presets

    yolo, atss = YOLO(["a"], channel_sparsity=0.25), dense_presets.atss(["a"], backbone="resnet18")
    plain = {"min_score": None, "nms_iou": None, "max_detections": 7}
    assert set_thresholds(yolo, **plain) == yolo.postprocess.score_threshold == 0.3
    assert yolo.postprocess.nms_iou == 0.4
    assert set_thresholds(atss, **plain) == 0.55
    assert (atss.postprocess.nms_iou, atss.postprocess.max_detections) == (0.6, 7)
    # ATSS compares the class alone with its threshold: a score above 0.3 may have a class below it.
    set_thresholds(atss, min_score=0.3, nms_iou=0.5, max_detections=7)
    assert (atss.postprocess.score_threshold, atss.postprocess.nms_iou) == (0.05, 0.5)
    set_thresholds(atss, min_score=0.01, nms_iou=None, max_detections=7)
    assert atss.postprocess.score_threshold == 0.01
    assert input_rule(tmp_path / "alone.safetensors", yolo).side == 416
    assert input_rule(tmp_path / "alone.safetensors", atss).side == ShortSide(800, 1333)


def test_no_detection_is_written_below_the_least_score(shapes: Path, tmp_path: Path):
    from boxmatch.checkpoints import save_detector
    from boxmatch.models import dense_presets

    torch.manual_seed(0)
    detector = dense_presets.atss(["a"], backbone="resnet18")
    torch.nn.init.normal_(detector.head.class_logits.weight, std=0.1)
    torch.nn.init.constant_(detector.head.class_logits.bias, 0)
    save_detector(detector, tmp_path / "a.safetensors")
    (tmp_path / "config.yaml").write_text("data: {resize: {short_side: 64, long_side: 64}}")
    picture = next((shapes / "VOC2007" / "JPEGImages").iterdir())
    for name, sizes in (("one", []), ("many", ["--multi_scale", "64", "--soft_vote"])):
        output = tmp_path / name
        arguments = ["--weights", str(tmp_path / "a.safetensors"), "--output", str(output), "--no_pictures"]
        assert main(["predict", str(picture), *arguments, "--min_score", "0.5", *sizes]) == 0
        scores = [
            one["score"] for one in json.loads((output / "detections.json").read_text(encoding="utf-8"))
        ]
        assert scores and min(scores) > 0.5
