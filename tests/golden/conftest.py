"""One test per golden file that is there; a reason where there is none."""

from pathlib import Path

import pytest


def yolo_folder(config: pytest.Config) -> Path:
    """The folder with the files of the simple-YOLO system: DIR/yolo, or DIR itself."""
    folder = Path(config.getoption("--golden-dir")).resolve()
    return folder / "yolo" if (folder / "yolo").is_dir() else folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give arguments `case_file` and `nms_file` one value per file of that kind."""
    for argument, pattern in (("case_file", "case*.npz"), ("nms_file", "nms*.npz")):
        if argument not in metafunc.fixturenames:
            continue
        folder = yolo_folder(metafunc.config)
        files = sorted(folder.glob(pattern))
        missing = pytest.param(
            None,
            marks=pytest.mark.skip(f"no {pattern} in {folder}; say where with --golden-dir"),
            id="missing",
        )
        metafunc.parametrize(argument, files or [missing], ids=[file.stem for file in files] or None)


@pytest.fixture(scope="session")
def golden_yolo(request: pytest.FixtureRequest) -> Path:
    """Folder of the simple-YOLO files; tests that need it are skipped without any."""
    folder = yolo_folder(request.config)
    if not any(folder.glob("*.npz")):
        pytest.skip(f"no golden files of the simple YOLO in {folder}; say where with --golden-dir")
    return folder
