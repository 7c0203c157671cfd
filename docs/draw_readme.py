"""Draw the picture of the README, three assigners on one drawn picture: python docs/draw_readme.py"""

from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from boxmatch import AllGrid, AnchorGrid, Assigner, NearbyGrid, SingleGrid, Targets
from boxmatch.data.shapes import draw_shapes
from boxmatch.data.voc import read_voc
from boxmatch.models import COCO_ANCHORS
from boxmatch.visualize.assignment import draw_assignment

SIZE = 192
LEVEL = 1  # stride 16: coarse enough that each marker can be seen
PICTURE = 4  # overlaps, small and large objects, not too many of them


def sample() -> tuple[Image.Image, Targets]:
    """One picture of the built-in set and its boxes."""
    with TemporaryDirectory() as folder:
        draw_shapes(Path(folder), train=8, val=1, size=SIZE, seed=0)
        annotations = read_voc(folder, "train")
        rows = annotations.rows(PICTURE)
        picture = Image.open(annotations.file(PICTURE)).convert("RGB")
    boxes, labels = annotations.boxes[rows], annotations.labels[rows]
    return picture, Targets.from_lists([torch.from_numpy(boxes)], [torch.from_numpy(labels.astype(np.int64))])


def panel(assigner: Assigner, picture: Image.Image, targets: Targets) -> Image.Image:
    """What one assigner makes of it, on one level."""
    priors = AnchorGrid(COCO_ANCHORS, (8, 16, 32))([(SIZE // s, SIZE // s) for s in (8, 16, 32)])
    assignment = assigner(priors, targets)
    stats = assignment.stats()
    title = f"{type(assigner).__name__}: {stats.total} positives, {len(stats.starved)} boxes without any"
    figure = draw_assignment(picture, targets, assignment, priors, level=LEVEL, title=title)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=80)
    return Image.open(drawn).convert("RGB")


def main() -> None:
    """Side by side into docs/pictures."""
    picture, targets = sample()
    panels = [panel(assigner, picture, targets) for assigner in (SingleGrid(), NearbyGrid(), AllGrid())]
    row = Image.new("RGB", (sum(p.width for p in panels), panels[0].height), "white")
    for number, drawn in enumerate(panels):
        row.paste(drawn, (number * drawn.width, 0))
    folder = Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    row.save(folder / "assigners.png")


if __name__ == "__main__":
    main()
