"""`boxmatch train` and `boxmatch check`: what they print, refuse and leave behind."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typed_commands import TINY, failing

from boxmatch.cli import main
from boxmatch.commands.parser import parse
from boxmatch.commands.training import train_parser


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


def test_the_precision_may_be_written_as_a_number(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("trainer:\n  precision: 32\n", encoding="utf-8")
    config = parse(train_parser("train"), ["--config", str(recipe), "--data.root", str(tmp_path)])
    assert config.trainer.precision == 32
