"""Writes tiny data sets in the three layouts for the tests of this folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

Box = tuple[str, float, float, float, float]  # class, xyxy in pixels from 0 with exclusive ends
Pictures = Mapping[str, Sequence[Box]]  # objects of each picture, by name without suffix
SIZE = (64, 48)
TWO: Pictures = {"a": [("cat", 4, 6, 24, 26), ("dog", 10, 10, 50, 40)], "b": []}


def write_picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)


def voc_xml(objects: Sequence[Box], size: tuple[int, int] | None = SIZE, extra: str = "") -> str:
    parts = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for name, x1, y1, x2, y2 in objects:
        box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        parts += f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"
    return f"<annotation>{parts}</annotation>"


def write_voc(root: Path, pictures: Pictures = TWO, split: str = "train", year: str = "VOC2007") -> Path:
    folder = root / year
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, objects in pictures.items():
        write_picture(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(objects))
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(pictures) + "\n")
    return root


def coco_content(pictures: Pictures = TWO) -> dict[str, list[dict[str, object]]]:
    classes = sorted({name for objects in pictures.values() for name, *_ in objects})
    images, annotations = [], []
    for number, (name, objects) in enumerate(pictures.items(), start=1):
        images.append({"id": number, "file_name": f"{name}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for class_name, x1, y1, x2, y2 in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": classes.index(class_name) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, content: object = None, split: str = "train", pictures: Pictures = TWO) -> Path:
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for name in pictures:
        write_picture(root / split / f"{name}.jpg")
    text = json.dumps(coco_content(pictures) if content is None else content)
    (folder / f"instances_{split}.json").write_text(text)
    return root


def write_yolo(root: Path, pictures: Pictures = TWO, split: str = "train") -> Path:
    classes = sorted({name for objects in pictures.values() for name, *_ in objects})
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    for name, objects in pictures.items():
        write_picture(root / "images" / split / f"{name}.jpg")
        lines = [
            f"{classes.index(class_name)} {(x1 + x2) / 2 / SIZE[0]:.6f} {(y1 + y2) / 2 / SIZE[1]:.6f} "
            f"{(x2 - x1) / SIZE[0]:.6f} {(y2 - y1) / SIZE[1]:.6f}\n"
            for class_name, x1, y1, x2, y2 in objects
        ]
        (root / "labels" / split / f"{name}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text(f"names: {classes}\n{split}: images/{split}\n")
    return root
