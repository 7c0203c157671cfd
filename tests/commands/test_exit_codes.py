"""The exit code of each kind of error."""

import errno
from pathlib import Path

import pytest
from PIL import Image
from typed_commands import failing

from boxmatch.cli import main
from boxmatch.commands import predict
from boxmatch.errors import DivergedError, ProcessLostError


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
        (DivergedError("loss"), 5),
        (ProcessLostError("rank 1"), 6),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (MemoryError(), 6),
        (KeyboardInterrupt(), 130),
        (RuntimeError("DataLoader worker (pid 3) exited unexpectedly"), 6),
        (RuntimeError("something else"), 1),
    ],
    ids=repr,
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: int, monkeypatch, capsys):
    def fails(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(predict, "run", fails)
    assert main(["predict", "x"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


def test_traceback_is_shown_on_demand(capsys, monkeypatch):
    assert main(["predict", "x", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("BOXMATCH_DEBUG", "1")
    assert main(["predict", "x"]) == 2
    assert "Traceback" in capsys.readouterr().err
