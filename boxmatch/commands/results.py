"""Evaluations as tables for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns of one width, words to the left and numbers to the right; None is shown as a dash."""
    text = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(cells[column]) for cells in [list(head), *text]) for column in range(len(head))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float | None) for row in rows)
        for column in range(len(head))
    ]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(list(head)), "  ".join("-" * width for width in widths), *map(line, text)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def evaluation_table(result: Mapping[str, Any]) -> str:
    """AP per class and for all, AP by size of the objects, and the settings they were measured under."""
    rows: list[list[Any]] = [
        [name, part["boxes"], part["map_50"], part["map"]]
        for name, part in result["per_class"].items()
        if part["boxes"]
    ]
    absent = len(result["per_class"]) - len(rows)
    rows.append(["all", result["boxes"], result["map_50"], result["map"]])
    sizes = ", ".join(f"{size} {_cell(result.get(f'map_{size}'))}" for size in ("small", "medium", "large"))
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items() if value is not None)
    return "\n".join(
        [
            table(["class", "boxes", "AP@0.5", "AP@0.5:0.95"], rows),
            f"AP@0.75 {_cell(result.get('map_75'))}; AP@0.5:0.95 by size of the object: {sizes}",
            f"on {result['pictures']} pictures; {settings}",
            *([f"{absent} classes have no box here and are not listed"] if absent else []),
        ]
    )


def result_table(last: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """The table of the last evaluation of a run, and its best epoch."""
    if not last:
        return "The run was not evaluated."
    lines = [f"Evaluation after epoch {int(last['epoch']) + 1}:", evaluation_table(last)]
    if best and best["epoch"] != last["epoch"]:
        lines.append(
            f"Best was epoch {int(best['epoch']) + 1}: AP@0.5 {_cell(best['map_50'])}, "
            f"AP@0.5:0.95 {_cell(best['map'])}"
        )
    return "\n".join(lines)


# What stands in the files of a run folder, in the order in which people look at them.
FILES = {
    "metrics.json": "last and best evaluation",
    "metrics.csv": "one row per epoch",
    "curves.png": "losses, precision and learning rate",
    "pr_curves.png": "precision over recall, per class",
    "predictions.png": "predictions beside the truth",
    "assignment.png": "which places learn which box",
    "best.safetensors": "weights of the best epoch",
    "config.yaml": "all settings, for --config",
}


def closing_lines(folder: Path) -> str:
    """The folder of a run and what is in it."""
    found = {name: about for name, about in FILES.items() if (folder / name).is_file()}
    width = max((len(name) for name in found), default=0)
    return "\n".join(
        [f"Run folder: {folder}", *(f"  {name:<{width}}  {about}" for name, about in found.items())]
    )
