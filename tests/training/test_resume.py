"""A run that is killed or interrupted anywhere and resumed ends like one that was left alone, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "broken_runs.py"
REPOSITORY = Path(__file__).parents[2]

# Three epochs of four batches, saved after each step. b: SIGKILL before this batch; f: before this
# replacement of a file, which hits every moment of a save; i, t: SIGINT, SIGTERM during this batch; v: SIGINT
# in this evaluation.
KILLED = ["b1", "b4", "b6", "f2", "f9", "f12", "b5/2"]
INTERRUPTED = ["i5", "t7", "v1"]
MORE_KILLED = (
    [f"b{batch}" for batch in range(1, 12)] + [f"f{event}" for event in range(2, 40)] + ["b3/3", "b7/2"]
)


def run_broken(folder: Path, breaks: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), *breaks],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_broken(tmp_path_factory.mktemp("runs"), KILLED + INTERRUPTED)


def check_equal(results: dict[str, Any], name: str, codes: list[int]) -> None:
    whole = results[f"whole/{name.partition('/')[2] or '1'}"]
    assert results[name].pop("codes") == codes
    assert results[name] == {key: value for key, value in whole.items() if key != "codes"}


@pytest.mark.parametrize("name", KILLED)
def test_promise_a_killed_run_ends_like_one_that_was_left_alone(results: dict[str, Any], name: str):
    check_equal(results, name, [-9, 0])


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_saves_its_step_and_answers_130(results: dict[str, Any], name: str):
    check_equal(results, name, [130, 0])


@pytest.mark.slow
def test_promise_a_run_killed_at_every_step_and_every_write_ends_like_one_that_was_left_alone(tmp_path: Path):
    results = run_broken(tmp_path, MORE_KILLED)
    for name in MORE_KILLED:
        codes = results[name]["codes"]
        # The later events are never reached: that run ends by itself.
        assert codes[0] == -9 or name.startswith("f")
        check_equal(results, name, [codes[0], 0])
