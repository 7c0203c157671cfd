"""Counts and pictures of the assignment of some batches."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxmatch.assign import AutoAssign, DualWeight
from boxmatch.commands.prediction_files import safe_cell
from boxmatch.commands.results import table
from boxmatch.data.batch import Batch
from boxmatch.models.detector import Detector
from boxmatch.priors import Priors
from boxmatch.structures import Assignment, Targets
from boxmatch.training.run_folder import write_atomically
from boxmatch.visualize import draw_assignment, draw_explanation, draw_weights


class AssignmentReport:
    """Positives of every box, per level; pictures of some.

    Args:
        folder: where it is written.
        detector: whose assigner is asked.
        explain: boxes of each drawn picture whose candidates are drawn; those with the fewest positives.
    """

    def __init__(self, folder: Path, detector: Detector, *, explain: int = 0) -> None:
        self.folder, self.detector, self.explain = folder, detector, explain
        self.boxes: list[dict[str, Any]] = []
        self.totals = {"pictures": 0, "contested_priors": 0, "ignored_priors": 0, "background_priors": 0}
        self.levels: list[str] = []
        (folder / "pictures").mkdir(parents=True, exist_ok=True)

    def add(self, batch: Batch, number: int, pictures: int) -> None:
        """Count one batch and draw its first pictures."""
        priors = self.detector.priors(batch.images)
        predictions = None
        if self.detector.assigner.uses_predictions:
            with torch.no_grad():
                predictions = self.detector(batch.images)
        assignment = self.detector.assign(priors, batch.targets, predictions, explain=self.explain > 0)
        self.levels = [f"stride {level.stride}" for level in priors.levels] or ["all priors"]
        self._count(assignment, batch.targets, number)
        for picture in range(min(pictures, len(batch))):
            self._draw(batch, assignment, priors, number, picture)
            self._draw_explanations(batch, assignment, priors, number, picture)

    def _count(self, assignment: Assignment, targets: Targets, number: int) -> None:
        stats = assignment.stats()
        self.totals["pictures"] += targets.batch_size
        self.totals["contested_priors"] += stats.contested
        self.totals["ignored_priors"] += stats.ignored
        self.totals["background_priors"] += stats.background
        rows = zip(
            targets.image.tolist(),
            targets.labels.tolist(),
            targets.ignore.tolist(),
            targets.boxes.tolist(),
            stats.level_positives.tolist(),
            strict=True,
        )
        for image, label, ignore, box, per_level in rows:
            self.boxes.append(
                {
                    "batch": number,
                    "picture": image,
                    "class": self.detector.class_names[label],
                    "box": [round(side, 1) for side in box],
                    "ignore": ignore,
                    "positives": sum(per_level),
                    "per_level": per_level,
                }
            )

    def _draw(self, batch: Batch, assignment: Assignment, priors: Priors, number: int, picture: int) -> None:
        figure = draw_assignment(
            batch.images[picture],
            batch.targets,
            assignment,
            priors,
            picture=picture,
            class_names=self.detector.class_names,
            title=f"{type(self.detector.assigner).__name__}: batch {number}, picture {picture}",
        )
        figure.savefig(self.folder / "pictures" / f"batch{number}_picture{picture:02d}.png")

    def _draw_explanations(
        self, batch: Batch, assignment: Assignment, priors: Priors, number: int, picture: int
    ) -> None:
        """Why the boxes with the fewest positives got no more."""
        targets = batch.targets
        rows = ((targets.image == picture) & ~targets.ignore).nonzero().squeeze(1)
        fewest = assignment.stats().positives[rows].argsort(stable=True)[: self.explain]
        for row in rows[fewest].tolist():
            label = self.detector.class_names[int(targets.labels[row])]
            box = ", ".join(f"{side:.0f}" for side in targets.boxes[row].tolist())
            title = f"{type(self.detector.assigner).__name__}: picture {picture}, {label} at {box}"
            figure = draw_explanation(batch.images[picture], targets, assignment, priors, row, title=title)
            place = row - int((targets.image < picture).sum())
            name = f"batch{number}_picture{picture:02d}_box{place:02d}"
            figure.savefig(self.folder / "pictures" / f"{name}.png")
            if bool((assignment.neg_weight > 0).any()):
                figure = draw_weights(
                    batch.images[picture],
                    targets,
                    assignment,
                    priors,
                    row,
                    extra=self._center_prior(assignment, priors),
                    title=title,
                )
                figure.savefig(self.folder / "pictures" / f"{name}_weights.png")

    def _center_prior(self, assignment: Assignment, priors: Priors) -> dict[str, Tensor]:
        """What limits the bag of a box, where a soft rule has such a thing."""
        assigner = self.detector.assigner
        if isinstance(assigner, DualWeight):
            return {"bag (q)": assigner.membership(priors, assignment.targets, assignment.pairs)}
        return {"centre prior": assignment.score} if isinstance(assigner, AutoAssign) else {}

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The boxes that can be learned: all but ignore regions."""
        return [box for box in self.boxes if not box["ignore"]]

    def per_class(self) -> list[dict[str, Any]]:
        """Boxes, boxes without any positive, and positives per level of each class and of all."""
        groups = [
            (name, [b for b in self.objects if b["class"] == name]) for name in self.detector.class_names
        ]
        return [
            {
                "class": name,
                "boxes": len(group),
                "without_positive": sum(box["positives"] == 0 for box in group),
                "positives": sum(box["positives"] for box in group),
                "per_level": [sum(box["per_level"][n] for box in group) for n in range(len(self.levels))],
            }
            for name, group in [*groups, ("all", self.objects)]
        ]

    def write(self) -> None:
        """Write assignment.json and boxes.csv."""
        summary = {
            "assigner": type(self.detector.assigner).__name__,
            "levels": self.levels,
            **self.totals,
            "per_class": self.per_class(),
            "boxes": self.boxes,
        }
        write_atomically(
            self.folder / "assignment.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        )
        with (self.folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["batch", "picture", "class", "x1", "y1", "x2", "y2", "ignore", "positives", *self.levels]
            )
            for box in self.boxes:
                start = [box["batch"], box["picture"], safe_cell(box["class"]), *box["box"], box["ignore"]]
                writer.writerow([*start, box["positives"], *box["per_level"]])

    def text(self) -> str:
        """The table for the screen: per class that occurs, positives per level and boxes without any."""
        rows = [
            [
                part["class"],
                part["boxes"],
                part["without_positive"],
                part["positives"] / part["boxes"] if part["boxes"] else None,
                *part["per_level"],
            ]
            for part in self.per_class()
            if part["boxes"] or part["class"] == "all"
        ]
        head = ["class", "boxes", "no positive", "positives per box", *self.levels]
        lines = [
            f"{type(self.detector.assigner).__name__} on {self.totals['pictures']} pictures "
            "(positives per level on the right):",
            table(head, rows),
            f"{self.totals['contested_priors']} places were claimed by more than one box, "
            f"{self.totals['ignored_priors']} take no part.",
        ]
        starved = [box for box in self.objects if box["positives"] == 0]
        if starved:
            lines.append(f"{len(starved)} boxes teach nothing; the first:")
            lines += [
                f"  batch {box['batch']}, picture {box['picture']}: {box['class']} {box['box']}"
                for box in starved[:5]
            ]
        return "\n".join(lines)
