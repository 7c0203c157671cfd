"""Who may write into a run folder, and what its numbers look like."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from boxmatch.errors import CheckpointError
from boxmatch.training.run_folder import RunFolder


def finished_run(root: Path) -> RunFolder:
    folder = RunFolder(root)
    folder.last.parent.mkdir(parents=True)
    folder.last.write_bytes(b"")
    return folder


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder = RunFolder(tmp_path)
        folder.lock.write_text(json.dumps({"pid": other.pid, "host": socket.gethostname()}))
        words = f"process {other.pid} on {socket.gethostname()}"
        with pytest.raises(CheckpointError, match=words), folder.occupied(resume=False):
            pass
        assert folder.lock.exists()
    finally:
        other.communicate(b"\n")
    with folder.occupied(resume=False):
        assert json.loads(folder.lock.read_text())["pid"] == os.getpid()
    assert not folder.lock.exists()


def test_a_lock_of_another_machine_is_respected(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.lock.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with pytest.raises(CheckpointError, match="elsewhere"), folder.occupied(resume=False):
        pass


def test_a_lock_of_our_own_job_is_taken_over_when_a_cluster_queued_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = RunFolder(tmp_path)
    folder.lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "job": "77"}))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with folder.occupied(resume=False):
        assert json.loads(folder.lock.read_text())["host"] == socket.gethostname()


def test_a_lock_that_is_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = RunFolder(tmp_path)
    folder.lock.write_text("")
    content = json.dumps({"pid": 1, "host": "elsewhere"})
    monkeypatch.setattr("time.sleep", lambda seconds: folder.lock.write_text(content))
    with pytest.raises(CheckpointError, match="elsewhere"), folder.occupied(resume=False):
        pass


def test_a_lock_that_was_never_finished_is_taken_over(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.lock.write_text("{")
    os.utime(folder.lock, (0, 0))
    with folder.occupied(resume=False):
        assert str(os.getpid()) in folder.lock.read_text()


def test_a_folder_with_a_run_is_not_overwritten_but_can_be_resumed(tmp_path: Path):
    folder = finished_run(tmp_path / "run")
    words = "holds a run already; continue it with --resume"
    with pytest.raises(CheckpointError, match=words), folder.occupied(resume=False):
        pass
    with folder.occupied(resume=True):
        pass


def test_resuming_where_there_is_no_run_is_refused(tmp_path: Path):
    with (
        pytest.raises(CheckpointError, match="there is no run in"),
        RunFolder(tmp_path).occupied(resume=True),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(tmp_path: Path):
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot write into"), folder.occupied(resume=False):
        pass


def test_the_lock_is_given_up_after_an_error(tmp_path: Path):
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyError), folder.occupied(resume=False):
        raise KeyError
    assert not folder.lock.exists()


def test_metrics_hold_the_last_evaluation_at_the_top_and_both_below(tmp_path: Path):
    folder = RunFolder(tmp_path)
    result = {"map": 0.5, "map_50": 0.75, "per_class": {"a": {}}, "curves": {"recall": [0], "precision": {}}}
    folder.write_metrics({"epoch": 2, **result}, {"epoch": 1, **result, "map": 0.6})
    stored = json.loads(folder.metrics.read_text())
    assert (stored["map"], stored["map_50"], stored["per_class"]) == (0.5, 0.75, {"a": {}})
    assert (stored["last"]["epoch"], stored["best"]["epoch"], stored["best"]["map"]) == (2, 1, 0.6)
    assert "curves" not in stored["last"]
    assert json.loads(folder.curves.read_text())["best"] == {"recall": [0], "precision": {}}
