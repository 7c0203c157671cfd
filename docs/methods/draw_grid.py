"""Draw the pictures of grid.md, the three grid methods on one scene: python docs/methods/draw_grid.py"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from boxmatch.assign import AllGrid, NearbyGrid, SingleGrid
from boxmatch.priors import AnchorGrid
from boxmatch.structures import Targets
from boxmatch.visualize.assignment import draw_assignment

SIZE = 128
ANCHORS = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)]]
# Two overlapping boxes of like shape, a small one, and a line that resembles no anchor.
BOXES = [
    [14.0, 26.0, 52.0, 58.0],
    [34.0, 36.0, 70.0, 66.0],
    [96.0, 16.0, 108.0, 30.0],
    [4.0, 106.0, 126.0, 107.5],
]
COLORS = ["#7aa6c2", "#c2a37a", "#8fb58a", "#b08fb5"]


def scene() -> Image.Image:
    """The boxes as plain rectangles."""
    picture = Image.new("RGB", (SIZE, SIZE), "#f4f1ea")
    draw = ImageDraw.Draw(picture)
    for (x1, y1, x2, y2), color in zip(BOXES, COLORS, strict=True):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)  # PIL counts the last pixel in
    return picture


def main() -> None:
    """One picture per method into the folder `pictures`."""
    folder = Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    priors = AnchorGrid(ANCHORS, (8, 16))([(SIZE // 8, SIZE // 8), (SIZE // 16, SIZE // 16)])
    targets = Targets.from_lists([BOXES], [np.arange(len(BOXES))])
    for name, assigner in (("single", SingleGrid()), ("nearby", NearbyGrid()), ("all", AllGrid())):
        assignment = assigner(priors, targets)
        title = f"{type(assigner).__name__}: {assignment.stats()}"
        figure = draw_assignment(scene(), targets, assignment, priors, title=title)
        figure.savefig(folder / f"{name}_grid.png")
        print(title)


if __name__ == "__main__":
    main()
