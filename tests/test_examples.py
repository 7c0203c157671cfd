"""The examples run."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_plain_loop_trains_and_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "plain_loop.py"))["main"](steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step   0: loss ")
    assert [line.split()[0] for line in lines[1:]] == ["truth", "detection"]
