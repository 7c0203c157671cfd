"""What `boxmatch predict` writes."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxmatch.data.images import open_image
from boxmatch.structures import Detections
from boxmatch.training.run_folder import write_atomically
from boxmatch.visualize import draw_detections

COLUMNS = ("image_id", "file", "class", "score", "x1", "y1", "x2", "y2")
# A spreadsheet would run what begins with one of these as a formula.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe comes before the signs that begin one."""
    return "'" + text if text.startswith(FORMULA_SIGNS) else text


class PredictionFiles:
    """Collects detections and writes pictures, CSV, COCO results and the table of pictures and classes.

    Args:
        folder: created when needed.
        files: all pictures in the order of the tables; their position, from 1, is the image id.
        class_names: names in the order of the labels; category ids count from 1.
        pictures: also write every picture with its boxes.
    """

    def __init__(
        self, folder: Path, files: Sequence[Path], class_names: Sequence[str], *, pictures: bool
    ) -> None:
        self.folder, self.class_names, self.pictures = folder, class_names, pictures
        self.numbers = {file: number for number, file in enumerate(files, start=1)}
        self.images: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.rows: list[list[Any]] = []
        self.names: set[str] = set()
        (folder / "pictures" if pictures else folder).mkdir(parents=True, exist_ok=True)

    @property
    def count(self) -> int:
        """Pictures so far."""
        return len(self.images)

    @property
    def detections(self) -> int:
        """Detections so far."""
        return len(self.results)

    def add(self, file: Path, detections: Detections) -> None:
        """Take the detections of one picture, in its own pixels."""
        number = self.numbers[file]
        entry: dict[str, Any] = {"id": number, "file_name": file.as_posix()}
        if self.pictures:
            entry["picture"] = f"pictures/{self._free_name(file)}"
            picture = draw_detections(open_image(file), detections, self.class_names)
            picture.save(self.folder / entry["picture"])
        self.images.append(entry)
        for box, label, score in zip(
            detections.boxes.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True
        ):
            x1, y1, x2, y2 = (round(side, 2) for side in box)
            self.results.append(
                {
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "score": round(score, 5),
                }
            )
            name = safe_cell(self.class_names[label])
            self.rows.append([number, safe_cell(file.as_posix()), name, f"{score:.5f}", x1, y1, x2, y2])

    def _free_name(self, file: Path) -> str:
        """A file name that no other picture has taken: files of several folders may share theirs."""
        suffix = file.suffix.lower() if file.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        name, number = file.stem + suffix, 1
        while name.lower() in self.names:
            number += 1
            name = f"{file.stem}-{number}{suffix}"
        self.names.add(name.lower())
        return name

    def close(self) -> None:
        """Write the tables, ordered by picture, each whole or not at all."""
        self.images.sort(key=lambda entry: entry["id"])
        self.results.sort(key=lambda result: result["image_id"])
        self.rows.sort(key=lambda row: row[0])
        categories = [{"id": number + 1, "name": name} for number, name in enumerate(self.class_names)]
        write_atomically(self.folder / "detections.json", json.dumps(self.results) + "\n")
        images = {"images": self.images, "categories": categories}
        write_atomically(self.folder / "images.json", json.dumps(images, indent=1) + "\n")
        # Names of files may hold bytes that are no text; they are written as they are.
        table = self.folder / "detections.csv"
        with table.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self.rows)
