"""`boxmatch export`: the file it writes, and what it refuses."""

import json
from pathlib import Path

import jaxtyping
import torch
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.commands.prediction import InputRule
from boxmatch.data.resize import ShortSide


def test_export_writes_a_program_of_the_size_asked_for_with_class_names(
    run_folder: Path, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    file = tmp_path / "detector.pt2"
    arguments = ["--format", "torch", "--output", str(file), "--size", "64", "96"]
    assert main(["export", "--run", str(run_folder), *arguments]) == 0
    assert "64 x 96" in capsys.readouterr().out
    names = {"class_names.json": ""}
    program = torch.export.load(file, extra_files=names).module()
    boxes, scores = program(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert boxes.shape[1] == scores.shape[1] == 3 * (8 * 12 + 4 * 6 + 2 * 3)
    assert len(json.loads(names["class_names.json"])) == scores.shape[2]


def test_without_a_size_the_largest_wide_input_of_the_run_is_taken(run_folder: Path, monkeypatch):
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "boxmatch.export.export_torch", lambda detector, target, *, size, **options: sizes.append(size)
    )
    assert main(["export", "--run", str(run_folder), "--format", "torch"]) == 0
    assert sizes == [(96, 96)]
    assert InputRule(ShortSide(800, 1333)).largest == (800, 1344)


def test_what_cannot_be_exported_is_said(run_folder: Path, capsys):
    run = ["export", "--run", str(run_folder)]
    for arguments, message in (
        (["--format", "tflite"], "onnx or torch"),
        (["--nms_iou", "0.5"], "--nms"),
        (["--format", "torch", "--size", "50", "64"], "multiples of 32"),
        (["--weights", "a.safetensors"], "either --run"),
    ):
        code, said = failing(capsys, *run, *arguments)
        assert (code, message in said) == (2, True), said
