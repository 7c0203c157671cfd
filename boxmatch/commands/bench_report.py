"""Rows of a benchmark as a table and as JSON."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from boxmatch.commands.results import table
from boxmatch.training.run_folder import write_atomically


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Name of the processor; /proc/cpuinfo knows it on Linux, where the platform module does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_report(name: str, rows: Sequence[Any], file: str | None, *tables: Mapping[str, str]) -> None:
    """Print the rows, with what they have in common above the table; write JSON where that is asked for.

    Args:
        name: of the benchmark.
        rows: instances of one dataclass.
        file: of the JSON; '-' for the screen, None for none.
        tables: of each table the fields that it shows and their heads; "step.wall" is a field of a field. One
            without a value in any row is left out. Without them one table shows all under their own names.
    """
    plain = [dataclasses.asdict(row) for row in rows]
    measured_on = machine()
    report = {"benchmark": name, "machine": measured_on, "rows": plain}
    if file == "-":
        print(json.dumps(report, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in measured_on.items() if value is not None))
    common = {key: value for key, value in plain[0].items() if all(row[key] == value for row in plain)}
    if tables:
        print("\n\n".join(_chosen(plain, columns) for columns in tables))
    elif len(plain) == 1:
        print(table(["", name], [[key, value] for key, value in plain[0].items()]))
    else:
        print(", ".join(f"{key} {value}" for key, value in common.items()))
        differing = [key for key in plain[0] if key not in common]
        print(table(differing, [[row[key] for key in differing] for row in plain]))
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(file), json.dumps(report, indent=2) + "\n")
        print(f"Written to {file}")


def _chosen(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """The table of some fields."""
    values = {key: [_field(row, key) for row in rows] for key in columns}
    shown = [key for key in columns if any(value is not None for value in values[key])]
    cells = list(zip(*(values[key] for key in shown), strict=True))
    return table([columns[key] for key in shown], cells)


def _field(row: Mapping[str, Any], key: str) -> Any:
    """The value of a field, or of a field of it; None where the outer one is."""
    value: Any = row
    for part in key.split("."):
        value = None if value is None else value[part]
    return value
