"""What every test runs under: shapes checked on each call, one thread, and the folders of the shared data."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before the first import of the package: from here on every annotated shape and type is checked.
install_import_hook("boxmatch", "shape_checker.checked")

import torch  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller say where golden numbers and pictures lie; the defaults are beside the repository."""
    parser.addoption(
        "--golden-dir", default=str(REPOSITORY / "../shared/golden"), help="folder of golden numbers"
    )
    parser.addoption("--data-dir", default=str(REPOSITORY / "../shared/data"), help="folder of picture sets")


def pytest_configure(config: pytest.Config) -> None:
    """One thread: results do not depend on the machine, and tests do not fight for its cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of the golden numbers, one sub-folder per system; tests that need it are skipped without it."""
    return _existing(request, "--golden-dir")


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of the picture sets; tests that need it are skipped without it."""
    return _existing(request, "--data-dir")


def _existing(request: pytest.FixtureRequest, option: str) -> Path:
    folder = Path(request.config.getoption(option)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; give one with {option}")
    return folder
