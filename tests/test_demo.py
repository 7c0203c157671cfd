"""`boxmatch demo`: a tiny one always, the whole one with `-m slow`."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boxmatch.cli import main

PICTURES = ("curves.png", "pr_curves.png", "predictions.png", "assignment.png")
REPOSITORY = Path(__file__).resolve().parents[1]


def next_commands(text: str) -> list[list[str]]:
    """The commands under "Try next", without the program's name."""
    lines = text.partition("Try next:")[2].splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  boxmatch ")]


def test_tiny_demo_leaves_a_run_folder_and_its_next_commands_work(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOXMATCH_OUTPUT", raising=False)
    arguments = ["--epochs", "1", "--train", "16", "--val", "4", "--image_size", "96", "--output", "demo"]
    assert main(["demo", *arguments]) == 0
    text = capsys.readouterr().out
    folder = tmp_path / "demo"
    assert all((folder / name).stat().st_size > 10_000 for name in PICTURES)
    assert (folder / "metrics.csv").is_file()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["per_class"]) == {"circle", "square", "triangle"}
    assert re.search(r"all +\d+ ", text)
    assert "Run folder: demo" in text
    commands = next_commands(text)
    assert [command[0] for command in commands] == ["predict", "debug", "train", "train"]
    tiny = {"predict": [], "debug": ["--pictures", "1"], "train": ["--trainer.progress=false"]}
    for command in commands[:3]:
        assert main([*command, *tiny[command[0]]]) == 0, command
    assert (tmp_path / "demo-nearby-grid" / "metrics.json").is_file()


def test_demo_refuses_wrong_numbers_and_a_used_folder(tmp_path: Path, capsys):
    assert main(["demo", "--epochs", "0"]) == 2
    assert "1 or more" in capsys.readouterr().err
    assert main(["demo", "--epoch", "3"]) == 2
    assert "did you mean '--epochs'" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert not (tmp_path / "shapes").exists()


def test_speed_is_measured_without_touching_the_detector_and_threads_stay(tmp_path: Path):
    import torch

    from boxmatch import DataModule, simple_yolo
    from boxmatch.commands.step_time import find_speed
    from boxmatch.data.shapes import draw_shapes

    data = DataModule(str(draw_shapes(tmp_path, train=4, val=1, size=64)), image_size=64, batch_size=2)
    detector = simple_yolo(data.class_names, channel_sparsity=0.25).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    threads = torch.get_num_threads()
    speed = find_speed(detector, next(iter(data.train_dataloader())))
    assert speed.precision in ("32", "bf16-mixed")
    assert 1 <= speed.threads <= max(threads, 1)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


@pytest.mark.slow
def test_whole_demo_reaches_the_promised_precision_in_time(tmp_path: Path):
    import resource

    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "boxmatch", "demo", "--output", str(tmp_path / "demo")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["map_50"] >= 0.80
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Two idle cores keep to this by the wall clock, a busy machine by processor time.
    assert min(time.perf_counter() - start, used.ru_utime + used.ru_stime) <= 180
