"""The commands as a user types them, and what they leave behind."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import boxmatch.assign
from boxmatch.cli import COMMANDS, main
from boxmatch.commands.demo import OPTIONS
from boxmatch.commands.prediction_files import safe_cell
from boxmatch.commands.results import table
from boxmatch.commands.suggestions import advice, key_advice
from boxmatch.data.shapes import draw_shapes

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = [
    "--data.image_size=96",
    "--data.batch_size=8",
    "--detector.channel_sparsity=0.25",
    "--trainer.max_epochs=1",
    "--trainer.progress=false",
    "--trainer.tensorboard=false",
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen training and six validation pictures in VOC layout."""
    return draw_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=6, size=96)


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `boxmatch train` leaves and prints after one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        code = main(["train", "--data.root", str(shapes), "--output", str(folder), "--seed", "3", *TINY])
    assert code == 0
    return folder, screen.getvalue()


@pytest.fixture(scope="module")
def run_folder(trained: tuple[Path, str]) -> Path:
    """The folder of that run."""
    return trained[0]


def program(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "boxmatch", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd or REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that cannot work; no traceback may be in it."""
    code = main(list(arguments))
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return code, message


# Start-up and help


def test_help_needs_no_heavy_import_and_fits_one_screen():
    done = program("--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    check = (
        "import sys; sys.argv = ['boxmatch', '--help']\n"
        "import boxmatch.cli; boxmatch.cli.main()\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'jsonargparse', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    fresh = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert fresh.returncode == 0, fresh.stderr


def test_importing_the_package_is_light_and_its_names_come_on_demand():
    check = (
        "import sys, boxmatch\n"
        "assert 'torch' not in sys.modules\n"
        "from boxmatch import Targets\n"
        "assert 'torch' in sys.modules and 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported_and_others_are_refused():
    assert all(hasattr(boxmatch, name) for name in boxmatch.__all__)
    assert set(boxmatch.__all__) <= set(dir(boxmatch))
    assert set(boxmatch.__all__) == set(boxmatch._HOMES)
    with pytest.raises(AttributeError, match="nothing"):
        _ = boxmatch.nothing


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_fits_one_screen_and_ends_with_code_0(command: str, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: boxmatch " + command)
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("command", ["train", "val", "debug", "check"])
def test_every_option_of_a_help_screen_exists(command: str, capsys):
    from boxmatch.commands.parser import config_parser, option_names

    main([command, "--help"])
    named = set(re.findall(r"--([a-z_.]+)", capsys.readouterr().out))
    known = set(option_names(config_parser(command))) | {"detector.channel_sparsity"}
    own = {"output", "resume", "run", "weights", "split", "batches", "pictures", "print_config"}
    own |= {"score_threshold", "nms_iou", "max_detections"}
    sections = {name for name in named if name.endswith(".help")}
    assert named - known - own - sections == set()


@pytest.mark.parametrize(
    "section", ["data", "detector", "optimizer", "schedule", "ema", "trainer", "evaluation"]
)
def test_each_section_explains_its_options(section: str, capsys):
    assert main(["train", f"--{section}.help"]) == 0
    text = capsys.readouterr().out
    assert f"--{section}." in text
    assert "type:" in text


def test_a_class_explains_its_options(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--detector.assigner.help", "AllGrid"])
    assert left.value.code == 0
    assert "match_iou_thres" in capsys.readouterr().out


def test_without_command_the_help_is_shown_and_the_code_is_2(capsys):
    assert main([]) == 2
    assert "usage: boxmatch COMMAND" in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("boxmatch ")


def test_print_config_is_yaml_that_config_reads_again(shapes: Path, tmp_path: Path, capsys):
    arguments = [
        "--data.root",
        str(shapes),
        "--detector.assigner",
        "AllGrid",
        "--detector.assigner.match_iou_thres",
        "0.1",
    ]
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments, "--print_config"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["detector"]["init_args"]["assigner"]["init_args"]["match_iou_thres"] == 0.1
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "again.yaml"), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == config


# Wrong words


@pytest.mark.parametrize(
    ("arguments", "advised"),
    [
        (["--detector.asigner", "AllGrid"], "did you mean 'assigner'"),
        (["--detector.assigner", "NearbyGird"], "did you mean 'NearbyGrid'"),
        (["--detector.assigner.match_iou_thre", "0.1"], "did you mean 'match_iou_thres'"),
        (["--detector.backbone", "resnet19"], "did you mean 'resnet18'"),
        (["--detector", "YOLOO"], "did you mean 'YOLO'"),
        (["--detector.loss.iou_loss_type", "cious"], "did you mean 'ciou'"),
        (["--trainer.max_epoch", "3"], "did you mean 'trainer.max_epochs'"),
        (["--trainer.max_epochs", "three"], "trainer.max_epochs: expected int, got 'three'"),
        (["--optimizer.name", "adm"], "did you mean 'adam'"),
        (["--data.batchsize", "3"], "did you mean 'data.batch_size'"),
        (["--data.augment.mosaic_pp", "0.1"], "did you mean 'data.augment.mosaic_p'"),
        (["--data.policy.zero_size", "dropp"], "'drop'"),
        (["--outputt", "x"], "did you mean 'output'"),
        (["--data.image_size", "big"], "data.image_size: expected one of int"),
        (["--data.image_size", "100"], "multiples of 32"),
        (["--optimizer.base_lr", "-1"], "optimizer.base_lr: expected a number above 0"),
        (["--config", "nothing.yaml"], "no configuration file nothing.yaml"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest_valid_one(
    arguments, advised, shapes: Path, tmp_path, capsys
):
    code, message = failing(
        capsys, "train", "--data.root", str(shapes), "--output", str(tmp_path / "run"), *arguments
    )
    assert code == 2
    assert advised in message
    assert len(message.splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "advised"),
    [
        ("detectr: YOLO\n", "did you mean 'detector'"),
        ("detector:\n  asigner: NearbyGrid\n", "did you mean 'assigner'"),
        ("detector:\n  class_path: YOLO\n  init_args:\n    backbne: resnet18\n", "did you mean 'backbone'"),
        ("detector:\n  assigner:\n    class_path: NearbyGird\n", "did you mean 'NearbyGrid'"),
        (
            "detector:\n  assigner:\n    class_path: my.module.Grid\n",
            "cannot use my.module.Grid: No module named 'my'",
        ),
        ("trainer:\n  max_epoch: 3\n", "did you mean 'trainer.max_epochs'"),
        ("trainer:\n  precision: 32\n", "write it as text"),
        ("seed: 1\nseed: 2\n", "line 2: the key 'seed' stands here twice"),
        ("seed: [1\n", "line 2: while parsing a flow sequence"),
        ("data: !!python/object/apply:os.system ['touch hacked']\n", "could not determine a constructor"),
        ("- a\n- b\n", "expected lines like 'seed: 1'"),
        ("download: bash x.sh\n", "there is no option 'download'"),
    ],
)
def test_a_wrong_configuration_file_is_named_with_its_fault(
    text: str, advised: str, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(text, encoding="utf-8")
    code, message = failing(capsys, "train", "--config", "wrong.yaml", "--data.root", "x")
    assert code == 2
    assert advised in message
    assert not Path("hacked").exists()


def test_numbers_names_and_truth_values_of_a_file_are_what_they_look_like(tmp_path: Path, capsys):
    text = "data: {root: x, class_names: [yes, no, '1']}\noptimizer: {base_lr: 1e-3}\n"
    text += "trainer: {progress: false}\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["class_names"] == ["yes", "no", "1"]
    assert config["optimizer"]["base_lr"] == 0.001
    assert config["trainer"]["progress"] is False


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


def test_an_unknown_command_and_an_unknown_plain_option_are_answered(capsys):
    code, message = failing(capsys, "predct", "x")
    assert code == 2
    assert "did you mean 'predict'" in message
    code, message = failing(capsys, "predict", "x", "--weight", "y")
    assert code == 2
    assert "did you mean '--weights'" in message


def test_advice_lists_all_valid_words_when_none_is_near():
    assert advice("zzz", ["adam", "sgd"]) == "valid are: adam, sgd"
    assert advice("Adam", ["adam", "sgd"]) == "did you mean 'adam'?"
    assert (
        key_advice("trainer.epochs", ["trainer.max_epochs", "ema.decay"])
        == "did you mean 'trainer.max_epochs'?"
    )


# Exit codes


def test_missing_data_is_code_3_and_a_missing_root_code_2(tmp_path: Path, capsys):
    code, message = failing(
        capsys, "train", "--data.root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "r")
    )
    assert code == 3
    assert "nowhere" in message
    code, message = failing(capsys, "train", "--trainer.max_epochs", "1")
    assert code == 2
    assert "--data.root must be given" in message


def test_missing_foreign_and_damaged_weights_are_code_4(tmp_path: Path, capsys):
    (tmp_path / "foreign.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    for name, said in (
        ("none.safetensors", "there is no"),
        ("foreign.pth", "boxmatch convert"),
        ("damaged.safetensors", "damaged"),
    ):
        code, message = failing(capsys, "predict", picture, "--weights", str(tmp_path / name))
        assert code == 4
        assert said in message
    code, message = failing(capsys, "predict", picture, "--run", str(tmp_path))
    assert code == 4
    assert "holds none of" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("DivergedError('loss')", 5),
        ("ProcessLostError('rank 1')", 6),
        ("OSError(28, 'No space left on device')", 6),
        ("MemoryError()", 6),
        ("KeyboardInterrupt()", 130),
        ("RuntimeError('DataLoader worker (pid 3) exited unexpectedly')", 6),
        ("RuntimeError('something else')", 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: str, code: int, monkeypatch, capsys):
    from boxmatch import errors
    from boxmatch.commands import predict

    def fails(arguments: list[str]) -> int:
        raise eval(error, vars(errors))

    monkeypatch.setattr(predict, "run", fails)
    assert main(["predict", "x"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_traceback_is_shown_on_demand(capsys, monkeypatch):
    assert main(["predict", "x", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("BOXMATCH_DEBUG", "1")
    assert main(["predict", "x"]) == 2
    assert "Traceback" in capsys.readouterr().err


# train, val


def test_train_leaves_a_complete_run_folder(run_folder: Path):
    for name in ("metrics.json", "metrics.csv", "config.yaml", "best.safetensors", "train.log"):
        assert (run_folder / name).stat().st_size > 0
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert {"map", "map_50", "per_class", "last", "best"} <= set(metrics)
    assert set(metrics["per_class"]) == {"circle", "square", "triangle"}
    for name in ("curves.png", "pr_curves.png", "predictions.png", "assignment.png"):
        picture = np.asarray(Image.open(run_folder / name).convert("RGB"))
        assert picture.shape[0] > 200
        assert picture.std() > 10


def test_train_prints_the_class_table_before_and_the_result_after(trained: tuple[Path, str]):
    folder, text = trained
    before, _, after = text.partition("epoch 1/1")
    assert re.search(r"circle +\d+ +\d+", before)
    assert "AP@0.5:0.95" in after
    assert f"Run folder: {folder}" in after


def test_config_of_a_run_holds_what_was_asked_for_and_is_read_again(run_folder: Path, capsys):
    config = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["seed"] == 3
    assert config["data"]["image_size"] == 96
    assert config["detector"]["init_args"]["assigner"]["class_path"].endswith("NearbyGrid")
    with pytest.raises(SystemExit) as left:
        main(["train", "--config", str(run_folder / "config.yaml"), "--print_config"])
    assert left.value.code == 0
    again = yaml.safe_load(capsys.readouterr().out)
    assert all(
        again[section].items() >= config[section].items() for section in ("data", "optimizer", "trainer")
    )


def test_a_folder_with_a_run_is_not_written_over(run_folder: Path, shapes: Path, capsys):
    before = (run_folder / "config.yaml").read_bytes()
    code, message = failing(capsys, "train", "--data.root", str(shapes), "--output", str(run_folder), *TINY)
    assert code == 2
    assert "already holds a run" in message
    assert (run_folder / "config.yaml").read_bytes() == before


def test_resume_finds_the_configuration_of_the_run(run_folder: Path, tmp_path: Path, capsys):
    from boxmatch.commands.train import resumed_arguments

    assert resumed_arguments(["--resume", str(run_folder)])[:2] == [
        "--config",
        str(run_folder / "config.yaml"),
    ]
    assert resumed_arguments(["--resume", str(run_folder), "--config", "mine.yaml"])[-1] == "mine.yaml"
    code, message = failing(capsys, "train", "--resume", str(tmp_path))
    assert code == 2
    assert "there is no run" in message


def test_a_stopped_run_goes_on_with_resume_alone(shapes: Path, tmp_path: Path, capsys):
    run = str(tmp_path / "run")
    start = ["train", "--data.root", str(shapes), "--output", run, *TINY, "--trainer.max_epochs", "2"]
    assert main([*start, "--trainer.max_steps", "2"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", run, "--trainer.max_steps", "-1"]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]


def test_training_is_refused_on_bad_data_before_the_first_step(shapes: Path, tmp_path: Path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(shapes, broken)
    annotation = sorted((broken / "VOC2007" / "Annotations").iterdir())[0]
    annotation.write_text(annotation.read_text().replace("<xmin>", "<xmin>nan", 1), encoding="utf-8")
    code, message = failing(
        capsys, "train", "--data.root", str(broken), "--output", str(tmp_path / "run"), *TINY
    )
    assert code == 3
    assert annotation.stem in message
    assert not (tmp_path / "run").exists()
    assert main(["check", "--data.root", str(broken), "--output", str(tmp_path / "report.json")]) == 3
    assert annotation.stem in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_check_of_good_data_is_code_0_and_prints_the_class_table(shapes: Path, capsys):
    assert main(["check", "--data.root", str(shapes)]) == 0
    assert re.search(r"triangle +\d+ +\d+", capsys.readouterr().out)


def test_val_measures_a_run_as_its_training_did(run_folder: Path, tmp_path: Path, capsys):
    assert main(["val", "--run", str(run_folder), "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    trained = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))["best"]
    assert result["map"] == pytest.approx(trained["map"], abs=1e-6)
    assert result["settings"]["nms_iou"] == 0.6
    assert "nms_iou 0.6" in text


def test_val_takes_a_weight_file_another_split_and_other_thresholds(run_folder: Path, tmp_path: Path, capsys):
    weights = str(run_folder / "best.safetensors")
    arguments = ["--split", "train", "--nms_iou", "0.4", "--max_detections", "7", "--output", str(tmp_path)]
    assert main(["val", "--weights", weights, *arguments]) == 0
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert result["pictures"] == 16
    assert result["settings"]["nms_iou"] == 0.4
    code, message = failing(capsys, "val", "--run", str(run_folder), "--split", "tset")
    assert code == 2
    assert "train, val or test" in message


# predict


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


def test_a_batch_gives_what_single_pictures_give(run_folder: Path, shapes: Path):
    from boxmatch.commands.prediction import PictureStream, predict_all
    from boxmatch.commands.run_folders import load

    files = sorted((shapes / "VOC2007" / "JPEGImages").iterdir())[:5]
    detector = load(run_folder / "best.safetensors", score_threshold=0.01)
    single, batched = (dict(predict_all(detector, PictureStream(files, 96, size))) for size in (1, 4))
    for file in files:
        assert torch.allclose(single[file].scores, batched[file].scores, atol=1e-4)


def test_predict_sees_pictures_as_the_evaluation_does(run_folder: Path, shapes: Path):
    from boxmatch import DataModule
    from boxmatch.commands.prediction import read_input

    dataset = DataModule(str(shapes), image_size=96).dataset("val")
    canvas = read_input(dataset.annotations.file(0), 96).canvas
    assert torch.equal(canvas.permute(2, 0, 1), dataset.sample(0, 0).image)


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


# debug, convert, bench


@pytest.mark.parametrize("assigner", [name for name in boxmatch.assign.__all__ if name != "Assigner"])
def test_debug_draws_and_counts_for_every_assigner(assigner: str, shapes: Path, tmp_path: Path, capsys):
    options = [
        f"--detector.assigner={assigner}",
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


def test_convert_writes_weights_that_predict_reads(tmp_path: Path, capsys):
    from boxmatch import simple_yolo

    torch.save(simple_yolo(["a", "b"], channel_sparsity=0.25).state_dict(), tmp_path / "best.pth")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    original = str(tmp_path / "best.pth")
    arguments = ["--method", "nearby_grid", "--classes_file", str(tmp_path / "classes.txt")]
    assert main(["convert", original, *arguments]) == 0
    assert (tmp_path / "best.json").is_file()
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    weights = str(tmp_path / "best.safetensors")
    arguments = [
        "--weights",
        weights,
        "--output",
        str(tmp_path / "out"),
        "--image_size",
        "64",
        "--no_pictures",
    ]
    assert main(["predict", str(tmp_path / "a.png"), *arguments]) == 0
    categories = json.loads((tmp_path / "out" / "images.json").read_text())["categories"]
    assert [category["name"] for category in categories] == ["cat", "dog"]
    assert not (tmp_path / "out" / "pictures").exists()


def test_convert_says_what_is_missing_or_wrong(tmp_path: Path, capsys):
    (tmp_path / "no.pth").write_bytes(b"nothing")
    for arguments, code, said in (
        (["no.pth"], 2, "--method: expected single_grid"),
        (["no.pth", "--method", "nearby"], 2, "did you mean 'nearby_grid'"),
        (["no.pth", "--method", "nearby_grid", "--anchors", "10-13"], 2, "pairs like 10,13"),
        (["no.pth", "--method", "nearby_grid", "--anchors", "10,13", "16,30"], 2, "each of the 3 levels"),
        (["no.pth", "--method", "nearby_grid", "--classes", "a", "--classes_file", "b"], 2, "not both"),
        ([str(tmp_path / "no.pth"), "--method", "nearby_grid"], 4, "no.pth"),
        ([str(tmp_path / "gone.pth"), "--method", "nearby_grid"], 4, "gone.pth"),
    ):
        found, message = failing(capsys, "convert", *arguments)
        assert (found, said in message) == (code, True), message


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "assign",
            "--boxes",
            "3",
            "--batch_size",
            "1",
            "--image_size",
            "64",
            "--repeats",
            "1",
            "--methods",
            "single_grid",
        ],
        [
            "step",
            "--steps",
            "1",
            "--batch_size",
            "2",
            "--image_size",
            "64",
            "--detector.channel_sparsity",
            "0.25",
        ],
        ["data", "--batches", "1", "--batch_size", "1", "--image_size", "64"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_each_benchmark_prints_a_table_and_writes_json(arguments: list[str], tmp_path: Path, capsys):
    threads = torch.get_num_threads()
    assert main(["bench", *arguments, "--json", str(tmp_path / "bench.json")]) == 0
    assert torch.get_num_threads() == threads
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert report["benchmark"] == arguments[0]
    assert report["rows"]
    assert report["machine"]["torch"] == torch.__version__
    assert "----" in capsys.readouterr().out


def test_bench_index_hands_its_numbers_on(tmp_path: Path, monkeypatch, capsys):
    from boxmatch.bench import index

    numbers = {field.name: field.type(3) for field in dataclasses.fields(index.IndexCost)}
    cost = index.IndexCost(**numbers)
    asked = {}
    monkeypatch.setattr(index, "measure_index", lambda **options: asked.update(options) or cost)
    assert main(["bench", "index", "--pictures", "20", "--objects", "60", "--json", "-"]) == 0
    assert asked == {"pictures": 20, "objects": 60, "segmentation": False}
    assert json.loads(capsys.readouterr().out)["rows"] == [numbers]


def test_bench_refuses_what_it_does_not_know(capsys):
    for arguments, said in (
        (["stpe"], "did you mean 'step'"),
        (["assign", "--boxs", "3"], "did you mean '--boxes'"),
        (["assign", "--methods", "near_grid"], "did you mean 'nearby_grid'"),
        (["assign", "--repeats", "0"], "1 or more"),
        (["step", "--precision", "16"], "32 or bf16-mixed"),
        (["step", "--data.rot", "x"], "did you mean 'data.root'"),
    ):
        code, message = failing(capsys, "bench", *arguments)
        assert (code, said in message) == (2, True), message


def test_table_aligns_numbers_to_the_right_and_shows_nothing_as_a_dash():
    assert table(["class", "n"], [["a", 1], ["bcd", None], ["e", 100]]).splitlines() == [
        "class    n",
        "-----  ---",
        "a        1",
        "bcd      -",
        "e      100",
    ]


def test_numbered_folders_do_not_collide(tmp_path: Path, monkeypatch):
    from boxmatch.commands.run_folders import output_folder

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOXMATCH_OUTPUT", raising=False)
    (tmp_path / "runs" / "train-001").mkdir(parents=True)
    assert output_folder(None, "train") == Path("runs/train-002")
    assert output_folder("mine", "train") == Path("mine")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Exception, match="--output"):
        output_folder(None, "train")


def test_options_of_the_demo_are_options_of_train():
    from boxmatch.commands.parser import parse
    from boxmatch.commands.training import train_parser

    config = parse(train_parser("demo"), [*OPTIONS, "--data.root", "x"])
    assert config.detector.init_args.wh_decode == "sigmoid4"
