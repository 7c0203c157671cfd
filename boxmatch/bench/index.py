"""How long it takes to index and check a large COCO file, and how much memory that needs."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

PICTURES = 120_000  # COCO train2017 has 118 287 pictures with 860 001 objects of 80 classes
OBJECTS = 860_000
CLASSES = 80
SIDE = 640


@dataclass(frozen=True)
class IndexCost:
    """Cost of `load_splits` on a generated file.

    Args:
        pictures: pictures found.
        objects: objects found.
        file_mb: size of the file in megabytes (10^6 bytes).
        seconds: time from the call to the report, imports left out.
        cpu_seconds: processor time of the same stretch, which other processes do not lengthen much.
        peak_mb: largest memory of the whole process, with torch imported as in a training (about 550 MB of
            it).
        errors: problems that would forbid training.
    """

    pictures: int
    objects: int
    file_mb: float
    seconds: float
    cpu_seconds: float
    peak_mb: float
    errors: int


def measure_index(
    *, pictures: int = PICTURES, objects: int = OBJECTS, segmentation: bool = False, seed: int = 0
) -> IndexCost:
    """Generate a COCO file in a temporary folder and index and check it in a fresh process.

    Args:
        segmentation: give each object a polygon, as COCO has them: the file grows from 0.15 to 0.6 GB.

    Raises:
        subprocess.CalledProcessError: the process failed; its text is printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_coco(
            Path(folder) / "annotations" / "instances_train.json",
            pictures=pictures,
            objects=objects,
            segmentation=segmentation,
            seed=seed,
        )
        command = [sys.executable, "-m", "boxmatch.bench.index", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return IndexCost(**json.loads(done.stdout.splitlines()[-1]))


def write_coco(
    path: Path,
    *,
    pictures: int,
    objects: int,
    segmentation: bool = False,
    classes: int = CLASSES,
    seed: int = 0,
) -> None:
    """Write a COCO file: random boxes inside their pictures, ids with gaps, objects in random order."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_ids = np.cumsum(random.integers(1, 9, pictures))
    owner = image_ids[random.integers(0, pictures, objects)]
    category = random.integers(1, classes + 1, objects)
    corner = random.uniform(0, SIDE * 0.7, (objects, 2)).round(2)
    extent = random.uniform(2, SIDE * 0.3, (objects, 2)).round(2)
    crowd = random.random(objects) < 0.01
    names = [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "generated"}, "licenses": [], "images": [')
        for position, key in enumerate(image_ids.tolist()):
            entry = {"id": key, "file_name": f"{key:012d}.jpg", "width": SIDE, "height": SIDE, "license": 4}
            file.write((", " if position else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for row in range(objects):
            file.write(", " if row else "")
            _write_object(file, row, owner, category, corner, extent, crowd, segmentation)
        file.write(f'], "categories": {json.dumps(names)}}}')


def _write_object(
    file: TextIO,
    row: int,
    owner: np.ndarray,
    category: np.ndarray,
    corner: np.ndarray,
    extent: np.ndarray,
    crowd: np.ndarray,
    segmentation: bool,
) -> None:
    (x, y), (width, height) = corner[row].tolist(), extent[row].tolist()
    polygon = [round(x + width * ((k * 7) % 40) / 40, 2) for k in range(60)] if segmentation else []
    entry = {
        "segmentation": [polygon],
        "area": round(width * height * 0.6, 4),
        "iscrowd": int(crowd[row]),
        "image_id": int(owner[row]),
        "bbox": [x, y, width, height],
        "category_id": int(category[row]),
        "id": row + 1,
    }
    file.write(json.dumps(entry))


def index(root: Path) -> IndexCost:
    """Index and check the COCO file of a folder in this process; the pictures themselves are not touched."""
    import torch  # noqa: F401 (measured with it, because a training has it too)

    from boxmatch.data.load import load_splits

    start, cpu_start = time.perf_counter(), time.process_time()
    splits, report = load_splits(root, {"train": None}, layout="coco", pictures="skip")
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    file = next((root / "annotations").glob("*.json"))
    return IndexCost(
        pictures=len(splits["train"]),
        objects=len(splits["train"].labels),
        file_mb=round(file.stat().st_size / 1e6, 1),
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        peak_mb=round(peak_memory(), 1),
        errors=report.errors,
    )


def peak_memory() -> float:
    """Largest resident memory of this process so far, in megabytes (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux KiB


def main() -> None:
    """Print the cost for one folder as JSON (called in a fresh process by `measure_index`)."""
    parser = argparse.ArgumentParser(description="Index and check the COCO file of a folder.")
    parser.add_argument("root", type=Path)
    print(json.dumps(asdict(index(parser.parse_args().root))))


if __name__ == "__main__":
    main()
