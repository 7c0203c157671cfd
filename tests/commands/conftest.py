"""A small data set and a small run that the tests of the commands share."""

import contextlib
import io
from pathlib import Path

import pytest
from typed_commands import TINY

from boxmatch.cli import main
from boxmatch.data.shapes import draw_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen training and six validation pictures in VOC layout."""
    return draw_shapes(tmp_path_factory.mktemp("data") / "shapes", train=16, val=6, size=96)


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `boxmatch train` leaves and prints after one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        code = main(["train", "--data.root", str(shapes), "--output", str(folder), "--seed", "3", *TINY])
    assert code == 0
    return folder, screen.getvalue()


@pytest.fixture(scope="session")
def run_folder(trained: tuple[Path, str]) -> Path:
    """The folder of that run."""
    return trained[0]
