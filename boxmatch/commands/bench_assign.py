"""`boxmatch bench assign`: its options, its table and the picture of the memory curve."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from boxmatch.commands.arguments import PlainParser
from boxmatch.commands.errors import UsageError
from boxmatch.commands.suggestions import advice

Row = TypeVar("Row")

ASSIGN_COLUMNS = {
    "assigner": "assigner",
    "inputs": "inputs",
    "batch_size": "batch",
    "boxes_per_image": "boxes",
    "milliseconds": "ms",
    "cpu_milliseconds": "CPU ms",
    "dense_cpu_milliseconds": "dense CPU ms",
    "dense_ratio": "dense / ours",
    "peer_ratio": "torchvision / ours",
    "peak_mebibytes": "MiB",
    "dense_peak_mebibytes": "dense MiB",
}
"""What the table shows of an `AssignRow`, and under which head; the JSON has everything."""

EXPLANATION = """\
Milliseconds are medians per picture, MiB the peak of the whole batch. The dense form and torchvision's
matching work picture by picture: their peak is that of one. Ratios compare processor time per picture."""


def explanation(rows: Sequence[Any]) -> str:
    """What stands below the table: its units, and the notes of the assigners in it."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note and row.assigner not in notes.setdefault(row.note, []):
            notes[row.note].append(row.assigner)
    return "\n".join([EXPLANATION, *(f"{', '.join(names)}: {note}" for note, names in notes.items())])


def add_options(parser: PlainParser) -> None:
    """The options of the command beside --json and --threads."""
    parser.add_argument("--assigners", nargs="+")
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--boxes", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--dense_boxes", type=int, default=100)
    parser.add_argument("--device")
    parser.add_argument("--memory-curve", action="store_true")
    parser.add_argument("--picture", default="memory_curve.png")


def assign_rows(options: argparse.Namespace) -> list[Any]:
    """Measure; the picture of the memory curve is written where it was asked for."""
    from boxmatch.bench.assign import bench_assign, plans
    from boxmatch.bench.assigners import ASSIGNERS
    from boxmatch.bench.memory_curve import BOXES, draw_memory_curve, memory_curve
    from boxmatch.commands.devices import find_device

    for name in options.assigners or ():
        if name not in ASSIGNERS:
            raise UsageError(f"there is no assigner '{name}'; {advice(name, ASSIGNERS)}")
    names = tuple(options.assigners or ASSIGNERS)
    device = str(find_device(options.device or "cpu"))
    if not options.memory_curve:
        batches, boxes = options.batch or [1, 16], options.boxes or [1, 7, 20, 100]
        rows = bench_assign(
            names, batches, boxes, repeats=options.repeats, dense_boxes=options.dense_boxes, device=device
        )
        count = sum(len(plan.names) for plan in plans(names, batches, boxes))
        return _sorted(_with_progress(rows, count), names)
    boxes = options.boxes or list(BOXES)
    if len(set(boxes)) < 2 or len(options.batch or [16]) > 1:
        raise UsageError("--memory-curve: expected several numbers of boxes and one --batch")
    batch = (options.batch or [16])[0]
    points = memory_curve(
        names, batch_size=batch, boxes=sorted(boxes), repeats=min(options.repeats, 3), device=device
    )
    count = sum(len(plan.names) for plan in plans(names, [batch], boxes))
    measured = _sorted(_with_progress(points, count), names)
    file = Path(options.picture)
    file.parent.mkdir(parents=True, exist_ok=True)
    draw_memory_curve(measured).savefig(file, dpi=120)
    return measured


def _with_progress(rows: Iterable[Row], count: int) -> Iterator[Row]:
    from tqdm.auto import tqdm

    yield from tqdm(rows, total=count, desc="measuring", unit="row", leave=False, disable=None)


def _sorted(rows: Iterable[Any], names: Sequence[str]) -> list[Any]:
    """By assigner in the order of the registry, then inputs, batch and boxes."""
    return sorted(
        rows, key=lambda row: (names.index(row.assigner), row.inputs, row.batch_size, row.boxes_per_image)
    )
