"""The CSV files of a run."""

from pathlib import Path

from boxmatch.training.table import Table


def test_rows_come_back_as_written(tmp_path: Path):
    table = Table(tmp_path / "a.csv")
    table.append({"epoch": 0, "loss": 1.5, "map": None})
    table.append({"epoch": 1, "loss": 1.25, "map": 0.5})
    assert table.read() == (
        [{"epoch": "0", "loss": "1.5", "map": ""}, {"epoch": "1", "loss": "1.25", "map": "0.5"}],
        ["epoch", "loss", "map"],
    )


def test_a_new_name_adds_a_column_that_is_empty_for_older_rows(tmp_path: Path):
    table = Table(tmp_path / "a.csv")
    table.append({"epoch": 0})
    table.append({"epoch": 1, "map": 0.5})
    table.append({"epoch": 2})
    assert [row["map"] for row in table.read()[0]] == ["", "0.5", ""]


def test_another_process_continues_the_file(tmp_path: Path):
    Table(tmp_path / "a.csv").append({"epoch": 0, "loss": 1})
    Table(tmp_path / "a.csv").append({"loss": 2, "epoch": 1})
    assert Table(tmp_path / "a.csv").read()[0] == [{"epoch": "0", "loss": "1"}, {"epoch": "1", "loss": "2"}]


def test_cutting_drops_later_rows_and_an_unfinished_one(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("epoch,loss\n0,1\n1,2\n2,3\n1")
    table = Table(path)
    table.cut("epoch", 2)
    assert table.read()[0] == [{"epoch": "0", "loss": "1"}, {"epoch": "1", "loss": "2"}]
    table.append({"epoch": 2, "loss": 9})
    assert len(table.read()[0]) == 3


def test_cutting_a_file_that_does_not_exist_does_nothing(tmp_path: Path):
    Table(tmp_path / "a.csv").cut("epoch", 0)
    assert not (tmp_path / "a.csv").exists()
