"""`boxmatch convert`: checkpoints of the original project."""

import json
from pathlib import Path

import torch
from PIL import Image
from typed_commands import failing

from boxmatch.cli import main


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
