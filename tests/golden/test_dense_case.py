"""The reader of the dense detectors' golden files: what is missing fails, an absent folder is skipped."""

from pathlib import Path
from typing import Any

import pytest
from dense_case import DenseCase, parametrize_cases


class Asked:
    """What pytest would call `parametrize_cases` with, for a test of one file."""

    fixturenames = ("dense_file",)

    def __init__(self, folder: Path) -> None:
        self.config = self
        self.folder = folder
        self.values: list[Any] = []

    def getoption(self, name: str) -> str:
        return {"--golden-dir": str(self.folder)}[name]

    def parametrize(self, name: str, values: list[Any]) -> None:
        self.values = values


def asked(folder: Path) -> list[Any]:
    metafunc = Asked(folder)
    parametrize_cases(metafunc, "atss", "paa")  # type: ignore[arg-type]
    return metafunc.values


def test_a_folder_that_is_not_there_is_skipped_with_a_reason(tmp_path: Path) -> None:
    values = asked(tmp_path)
    assert [value.id for value in values] == ["atss-missing", "paa-missing"]
    assert all("no folder" in value.marks[0].kwargs["reason"] for value in values)


def test_a_folder_without_files_of_the_kind_fails(tmp_path: Path) -> None:
    (tmp_path / "atss").mkdir()
    value = asked(tmp_path)[0]
    assert not value.marks
    with pytest.raises(pytest.fail.Exception, match="expected golden files"):
        DenseCase.read(value.values[0])


def test_a_folder_may_be_the_one_of_a_system(tmp_path: Path) -> None:
    (tmp_path / "atss").mkdir()
    (tmp_path / "atss" / "case7.npz").touch()
    assert [value.id for value in asked(tmp_path / "atss")] == ["atss-case7", "paa-missing"]
    assert [value.id for value in asked(tmp_path)] == ["atss-case7", "paa-missing"]


def test_an_array_that_is_not_there_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="expected array labels"):
        DenseCase("atss", {}).array("labels")
