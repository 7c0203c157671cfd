"""Checkpoints that are cut, altered, foreign or hostile, and disks that are full."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from boxmatch.errors import CheckpointError
from boxmatch.training.checkpoint_io import (
    SafeCheckpointIO,
    previous_generation,
    read_checkpoint,
    read_newest,
    write_checkpoint,
)


def state(value: float) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((64, 64), value)}, "epoch": int(value), "global_step": 1}


def value_of(checkpoint: dict[str, Any]) -> float:
    return float(checkpoint["state_dict"]["weight"][0, 0])


def test_what_is_written_is_read(tmp_path: Path):
    write_checkpoint(state(3), tmp_path / "deep" / "last.ckpt")
    assert value_of(read_checkpoint(tmp_path / "deep" / "last.ckpt")) == 3
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_refused_by_name(tmp_path: Path, part: float):
    path = tmp_path / "last.ckpt"
    write_checkpoint(state(3), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged"):
        read_checkpoint(path)


def test_no_flipped_byte_gives_wrong_weights(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    write_checkpoint(state(3), path)
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), len(content) // 60):
        altered = bytearray(content)
        altered[position] ^= 0x10
        path.write_bytes(altered)
        try:
            # Bytes between the entries carry nothing: then the state must be the right one.
            checkpoint = read_checkpoint(path)
            assert torch.equal(checkpoint["state_dict"]["weight"], torch.full((64, 64), 3.0))
        except CheckpointError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a picture", b"PK\x05\x06" + bytes(18), b"text"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        read_checkpoint(path)


def test_a_file_without_a_training_state_is_refused(tmp_path: Path):
    torch.save({"weights": 1}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        read_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.ckpt")


class Attack:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_promise_code_in_a_checkpoint_is_never_run(tmp_path: Path):
    torch.save({"state_dict": {}, "attack": Attack(tmp_path / "owned")}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="damaged or no checkpoint"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert not (tmp_path / "owned").exists()


def test_the_generation_before_is_kept_and_used_when_the_last_is_damaged(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    for value in (1, 2):
        write_checkpoint(state(value), path, keep_previous=True)
    path.write_bytes(path.read_bytes()[:500])
    checkpoint, source, problem = read_newest(path)
    assert (value_of(checkpoint), source) == (1, previous_generation(path))
    assert problem is not None and "last.ckpt is damaged" in problem
    path.unlink()
    assert value_of(read_newest(path)[0]) == 1


def test_two_damaged_generations_are_an_error_that_names_both(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    for value in (1, 2):
        write_checkpoint(state(value), path, keep_previous=True)
    for each in (path, previous_generation(path)):
        each.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged.*last\.previous\.ckpt is damaged"):
        read_newest(path)


def test_a_full_disk_leaves_what_was_there_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "last.ckpt"
    write_checkpoint(state(1), path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left.*needs 0\.0 MB, .* MB are free"):
        write_checkpoint(state(2), path)
    assert value_of(read_checkpoint(path)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_removing_a_missing_checkpoint_is_no_error(tmp_path: Path):
    SafeCheckpointIO().remove_checkpoint(tmp_path / "none.ckpt")
