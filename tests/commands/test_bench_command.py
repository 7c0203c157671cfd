"""`boxmatch bench`: tables and JSON."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from typed_commands import failing

from boxmatch.bench import detector_memory
from boxmatch.cli import main
from boxmatch.commands.results import table


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "assign",
            "--boxes",
            "3",
            "--batch",
            "1",
            "--repeats",
            "1",
            "--assigners",
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


def test_bench_assign_shows_a_table_that_a_person_can_read(capsys):
    asked = ["--assigners", "atss", "fcos_region", "--boxes", "9", "2", "--batch", "1", "--repeats", "1"]
    assert main(["bench", "assign", *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(row for row, line in enumerate(lines) if line.startswith("assigner"))
    assert "dense / ours" in lines[head] and "torchvision / ours" in lines[head]
    rows = [line.split() for line in lines[head + 2 : head + 6]]
    assert [(row[0], row[3]) for row in rows] == [
        (name, boxes) for name in ("atss", "fcos_region") for boxes in ("2", "9")
    ]
    assert lines[-1].endswith("Ratios compare processor time per picture.")


def test_bench_assign_draws_the_memory_curve(tmp_path: Path, capsys):
    asked = ["--assigners", "single_grid", "--boxes", "1", "40", "--batch", "1", "--repeats", "1"]
    picture = tmp_path / "new" / "curve.png"
    assert main(["bench", "assign", "--memory-curve", *asked, "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "peak_mebibytes" in capsys.readouterr().out


def test_bench_detector_shows_training_and_inference(tmp_path: Path, monkeypatch, capsys):
    from boxmatch.bench import detector

    monkeypatch.setattr(detector, "measure_memory", lambda task: detector_memory.DetectorMemory(7.0, 5.0))
    asked = ["--detectors", "paa", "--beside", "none", "--size", "64", "64", "64", "96", "--batch", "1"]
    file = tmp_path / "bench.json"
    small = ["--steps", "1", "--backbone", "resnet18", "--boxes", "2", "--json", str(file)]
    assert main(["bench", "detector", *asked, *small]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [row for row, line in enumerate(lines) if line.startswith("model")]
    assert "assign + loss" in lines[heads[0]] and "voting adds" in lines[heads[1]]
    assert "/ torchvision FCOS" not in lines[heads[0]]  # nothing was measured beside it
    for head in heads:
        rows = [line.split()[:4] for line in lines[head + 2 : head + 4]]
        assert rows == [["paa", "64", "64", "1"], ["paa", "64", "96", "1"]]
    first = json.loads(file.read_text(encoding="utf-8"))["rows"][0]
    assert first["forward"]["processor"] > 0 and first["train_mebibytes"] == 7.0


def test_bench_refuses_what_it_does_not_know(capsys):
    for arguments, said in (
        (["detector", "--detectors", "pa"], "did you mean 'paa'"),
        (["detector", "--beside", "mmdet"], "torchvision or none"),
        (["detector", "--backbone", "resnet19"], "did you mean 'resnet1"),
        (["detector", "--size", "320"], "pairs of height and width"),
        (["detector", "--size", "320", "330"], "multiples of 32"),
        (["stpe"], "did you mean 'step'"),
        (["assign", "--boxs", "3"], "did you mean '--boxes'"),
        (["assign", "--assigners", "near_grid"], "did you mean 'nearby_grid'"),
        (["assign", "--dense_boxes", "-1"], "0 or more"),
        (["assign", "--memory-curve", "--boxes", "5"], "several numbers of boxes"),
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
