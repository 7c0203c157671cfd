"""The folder of one training run: names of its files, the rows and numbers written into it."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class RunFolder:
    """Names and writes the files of a run.

    Args:
        root: the folder; created when the run starts.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.checkpoints = self.root / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.best_weights = self.root / "best.safetensors"
        self.metrics = self.root / "metrics.json"
        self.curves = self.root / "pr_curves.json"
        self.epochs = self.root / "metrics.csv"
        self.steps = self.root / "steps.csv"
        self.log = self.root / "train.log"

    def create(self) -> None:
        """Make the folder and the one for checkpoints."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def write_metrics(self, last: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        """metrics.json: `map`, `map_50` and `per_class` of the last evaluation at the top, `last` and `best` in full."""
        without = [{k: v for k, v in part.items() if k != "curves"} for part in (last, best)]
        top = {key: last[key] for key in ("map", "map_50", "per_class")}
        write_atomically(
            self.metrics, json.dumps({**top, "last": without[0], "best": without[1]}, indent=2) + "\n"
        )
        write_atomically(self.curves, json.dumps({"last": last["curves"], "best": best["curves"]}) + "\n")


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row to a CSV file; a row with new columns rewrites the file with empty cells for the old rows."""
    rows, columns = read_rows(path)
    new = [name for name in row if name not in columns]
    if new or not path.exists():
        columns = [*columns, *new]
        write_rows(path, rows, columns)
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, columns).writerow(row)


def read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows and columns of a CSV file, none where it does not exist."""
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader), list(reader.fieldnames or [])


def write_rows(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    """Write a whole CSV file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
