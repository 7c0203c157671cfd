"""What the check before training found: a class table for each split, and every problem with its place."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from boxmatch.data.annotations import Annotations
from boxmatch.data.problems import CheckPolicy, Problem, ProblemLog
from boxmatch.errors import DataError

SHOWN_PER_KIND = 5


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds after the check.

    Args:
        pictures: all pictures.
        empty: pictures without an object.
        boxes: objects, ignore regions left out.
        ignored: crowd and difficult regions.
        per_class: objects of each class.
    """

    pictures: int
    empty: int
    boxes: int
    ignored: int
    per_class: tuple[int, ...]

    @classmethod
    def of(cls, annotations: Annotations) -> "SplitCounts":
        """Count a split."""
        ignored = int(annotations.ignore.sum())
        kept = np.concatenate([[0], np.cumsum(~annotations.ignore)])[annotations.offsets]
        return cls(
            pictures=len(annotations),
            empty=int((np.diff(kept) == 0).sum()),
            boxes=len(annotations.labels) - ignored,
            ignored=ignored,
            per_class=tuple(annotations.class_counts().tolist()),
        )


@dataclass(frozen=True)
class CheckReport:
    """Result of the check before training.

    Args:
        root: the data root.
        layout: "voc", "coco" or "yolo".
        class_names: the class table of all splits.
        splits: counts by name of the split, after the actions.
        problems: the first thousand of each kind and split, with the action taken.
        counts: (kind, split, action) and how often.
        notes: decisions the user did not ask for, as a validation split that was held out.
    """

    root: str
    layout: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitCounts]
    problems: tuple[Problem, ...]
    counts: dict[tuple[str, str, str], int]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        layout: str,
        annotations: Mapping[str, Annotations],
        log: ProblemLog,
        policy: CheckPolicy,
        *,
        root: str,
        class_names: tuple[str, ...],
        notes: tuple[str, ...] = (),
    ) -> "CheckReport":
        """Count the splits and give each problem its action."""
        counts = {(kind, split, log.action(kind, action, policy)): 0 for kind, split, action in log.counts}
        for (kind, split, action), number in log.counts.items():
            counts[kind, split, log.action(kind, action, policy)] += number
        problems = tuple(replace(p, action=log.action(p.kind, p.action, policy)) for p in log.problems)
        splits = {name: SplitCounts.of(part) for name, part in annotations.items()}
        return cls(root, layout, class_names, splits, problems, counts, notes)

    @property
    def errors(self) -> int:
        """How many problems forbid training."""
        return sum(number for (_, _, action), number in self.counts.items() if action == "error")

    def refuse(self) -> None:
        """Raise a DataError that lists what forbids training, if anything does."""
        if not self.errors:
            return
        lines = [
            line for kind, action in self._kinds() if action == "error" for line in self._lines(kind, action)
        ]
        head = f"{self.root}: {self.errors} problems forbid training; correct the files or change the policy"
        raise DataError([head, *lines])

    def text(self, shown: int = SHOWN_PER_KIND) -> str:
        """The class table and the first problems of each kind, for the terminal."""
        lines = [f"{self.root} ({self.layout}), {len(self.class_names)} classes", "", *self._table(), ""]
        lines += [f"note: {note}" for note in self.notes]
        for kind, action in self._kinds():
            lines += self._lines(kind, action, shown)
        if not self.counts:
            lines.append("no problems found")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The whole report as JSON, classes by name."""
        content = {
            "root": self.root,
            "layout": self.layout,
            "class_names": list(self.class_names),
            "splits": {
                name: asdict(counts)
                | {"per_class": dict(zip(self.class_names, counts.per_class, strict=True))}
                for name, counts in self.splits.items()
            },
            "errors": self.errors,
            "counts": [
                {"kind": kind, "split": split, "action": action, "number": number}
                for (kind, split, action), number in self.counts.items()
            ],
            "problems": [_plain(problem) for problem in self.problems],
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def _table(self) -> list[str]:
        rows = [["class", *self.splits]]
        empty = []
        for number, name in enumerate(self.class_names):
            counts = [split.per_class[number] for split in self.splits.values()]
            if any(counts):
                rows.append([name, *(f"{count:,}" for count in counts)])
            else:
                empty.append(name)
        listed = len(rows)
        for title, field in (
            ("objects", "boxes"),
            ("ignore regions", "ignored"),
            ("pictures", "pictures"),
            ("empty pictures", "empty"),
        ):
            rows.append([title, *(f"{getattr(counts, field):,}" for counts in self.splits.values())])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
            )
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return [
            lines[0],
            rule,
            *lines[1:listed],
            rule,
            *lines[listed:],
            *([f"no object of {len(empty)} classes: {', '.join(empty)}"] if empty else []),
        ]

    def _kinds(self) -> list[tuple[str, str]]:
        """Kinds of problems with their action, errors first."""
        found = {(kind, action): None for kind, _, action in self.counts}
        order = ("error", "drop", "clip", "keep")
        return sorted(found, key=lambda pair: order.index(pair[1]))

    def _lines(self, kind: str, action: str, shown: int = SHOWN_PER_KIND) -> list[str]:
        number = sum(n for (k, _, a), n in self.counts.items() if (k, a) == (kind, action))
        examples = [p for p in self.problems if (p.kind, p.action) == (kind, action)][:shown]
        verdict = {"error": "ERROR", "drop": "dropped", "clip": "clipped", "keep": "note"}[action]
        lines = [f"{verdict}: {kind} ({number:,})"]
        lines += [f"  {problem.split + ': ' if problem.split else ''}{problem}" for problem in examples]
        if number > len(examples):
            lines.append(f"  ... and {number - len(examples):,} more")
        return lines


def _plain(problem: Problem) -> dict[str, object]:
    """A problem without NaN or infinity, which JSON does not have: they are written as text."""
    content = asdict(problem)
    if problem.box is not None:
        content["box"] = [value if np.isfinite(value) else str(value) for value in problem.box]
    return content
