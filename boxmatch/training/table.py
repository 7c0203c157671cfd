"""A CSV file that grows by one row at a time and can be cut back when a run resumes from an earlier state."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path


class Table:
    """Rows of named values; a new name adds a column, empty for the rows before it.

    Args:
        path: the file; made by the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row and hand it to the operating system; None becomes an empty cell."""
        if self.columns is None or any(name not in self.columns for name in row):
            rows, columns = self.read()
            self._write(rows, list(dict.fromkeys([*columns, *row])))
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns or []).writerow(row)

    def read(self) -> tuple[list[dict[str, str]], list[str]]:
        """Rows and columns, none where there is no file."""
        if not self.path.exists():
            return [], []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader), list(reader.fieldnames or [])

    def cut(self, column: str, limit: int) -> None:
        """Drop the rows whose `column` is not below `limit`, and a row that a kill left unfinished."""
        rows, columns = self.read()
        if rows:
            self._write([row for row in rows if _below(row, column, limit)], columns)

    def _write(self, rows: list[dict[str, str]], columns: list[str]) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)
        self.columns = columns


def _below(row: Mapping[str, str | None], column: str, limit: int) -> bool:
    # A short row gives None for the cells it lacks.
    return None not in row.values() and float(row[column] or "inf") < limit
