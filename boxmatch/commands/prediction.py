"""Pictures of any size through a detector, in batches of one input size."""

import glob
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from boxmatch.commands.errors import EXIT_DATA, CommandError
from boxmatch.commands.run_folders import run_config
from boxmatch.data.batch import restore_boxes
from boxmatch.data.geometry import Placement, Size, draw, fitted_size
from boxmatch.data.images import SUFFIXES
from boxmatch.data.pictures import read_pixels
from boxmatch.data.resize import ShortSide
from boxmatch.errors import DataError
from boxmatch.models.detector import Detector
from boxmatch.strict_yaml import load_yaml
from boxmatch.structures import Detections

# Deepest stride: inputs are padded to a multiple of it, so that every map fits the next.
MULTIPLE = 32
DEFAULT_SIZE = 416
# Pixels; the files have two decimals, and a box beside the picture has nothing left after clipping.
LEAST_SIDE = 0.01


def find_pictures(sources: Sequence[str]) -> list[Path]:
    """Named files, picture files of folders, files that match patterns; each once, in a fixed order.

    Raises:
        CommandError: a folder or pattern has no pictures. A file that does not exist is met when it is read.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
        elif path.exists() or not glob.has_magic(source):
            files = [path]
        else:
            files = sorted(Path(name) for name in glob.glob(source, recursive=True) if Path(name).is_file())
        if not files:
            kind = "folder" if path.is_dir() else "pattern"
            raise CommandError(
                f"the {kind} {source} has no pictures ({', '.join(sorted(SUFFIXES))})", EXIT_DATA
            )
        found |= dict.fromkeys(files)
    return list(found)


def trained_size(weights: Path) -> int:
    """The longest side of the inputs of the run that the weights lie in, 416 if they lie in none."""
    config = run_config(weights)
    if config is None:
        return DEFAULT_SIZE
    data = (load_yaml(config.read_text(encoding="utf-8")) or {}).get("data", {})
    size = data.get("image_size", DEFAULT_SIZE)
    return int(max(size)) if isinstance(size, list) else int(size)


def trained_rule(weights: Path) -> ShortSide | None:
    """The rule by which the run of these weights sizes its pictures; None if it has one size for all."""
    config = run_config(weights)
    if config is None:
        return None
    rule = (load_yaml(config.read_text(encoding="utf-8")) or {}).get("data", {}).get("resize")
    return None if rule is None else ShortSide(rule["short_side"], rule["long_side"])


@dataclass(frozen=True)
class Input:
    """One picture as the network gets it, and the way back.

    Args:
        file: where it came from.
        canvas: the picture on a black canvas.
        scale: pixels of the canvas per pixel of the file, x and y.
        offset: where the file's corner lies on the canvas.
        original_size: width and height of the file.
        size: (height, width) of the upper left part of the canvas that boxes are clipped to.
    """

    file: Path
    canvas: UInt8[Tensor, "H W 3"]
    scale: tuple[float, float]
    offset: tuple[float, float]
    original_size: Size
    size: tuple[int, int]

    def restore(self, detections: Detections) -> Detections:
        """The detections in the file's own pixels, clipped to the file; those beside it are dropped."""
        scale = torch.tensor(self.scale, dtype=torch.float32)
        offset = torch.tensor(self.offset, dtype=torch.float32)
        boxes = restore_boxes(detections.boxes.cpu(), scale, offset, torch.tensor(self.original_size))
        seen = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(1)
        return Detections(boxes[seen], detections.scores.cpu()[seen], detections.labels.cpu()[seen])


def read_input(file: Path, side: int | ShortSide) -> Input:
    """Read a picture, bring it to size, and lay it on a canvas of multiples of 32.

    Args:
        file: the picture.
        side: its longest side, then it lies in the middle; or a rule, then in the upper left corner.

    Raises:
        DataError: the file cannot be read.
    """
    pixels = read_pixels(file)
    original = (pixels.shape[1], pixels.shape[0])
    if isinstance(side, ShortSide):
        width, height = side.size(original, side.short_side)
        left, top = 0, 0
    else:
        width, height = fitted_size(original, (side, side))
        left, top = (_padded(width) - width) // 2, (_padded(height) - height) // 2
    canvas = torch.zeros((_padded(height), _padded(width), 3), dtype=torch.uint8)
    draw(canvas, pixels, Placement(0, (left, top, left + width, top + height)))
    # As in evaluation: only padding on the right and at the bottom lies outside.
    size = (height, width) if isinstance(side, ShortSide) else (_padded(height), _padded(width))
    return Input(file, canvas, (width / original[0], height / original[1]), (left, top), original, size)


def _padded(length: int) -> int:
    return math.ceil(length / MULTIPLE) * MULTIPLE


class PictureStream:
    """Batches of pictures of one canvas size; files that cannot be read are named in `problems` instead.

    Args:
        files: the pictures.
        side: their longest side on the canvas, or the rule of their sizes.
        batch_size: pictures of a batch, at most.
    """

    def __init__(self, files: Sequence[Path], side: int | ShortSide, batch_size: int) -> None:
        self.files, self.side, self.batch_size = files, side, batch_size
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[list[Input]]:
        waiting: dict[tuple[int, ...], list[Input]] = defaultdict(list)
        for file in self.files:
            try:
                picture = read_input(file, self.side)
            except DataError as error:
                self.problems.append(str(error))
                continue
            group = waiting[tuple(picture.canvas.shape)]
            group.append(picture)
            if len(group) == self.batch_size:
                yield waiting.pop(tuple(picture.canvas.shape))
        yield from waiting.values()


@torch.inference_mode()
def predict_all(detector: Detector, stream: PictureStream) -> Iterator[tuple[Path, Detections]]:
    """Each picture with its detections in the file's own pixels; pictures of one size come together."""
    from tqdm.auto import tqdm

    detector.eval()
    device = detector.mean.device
    with tqdm(total=len(stream.files), unit="picture", disable=None) as progress:
        for batch in stream:
            images = torch.stack([picture.canvas for picture in batch]).permute(0, 3, 1, 2).to(device)
            sizes = torch.tensor([picture.size for picture in batch])
            for picture, found in zip(batch, detector.predict(images, sizes=sizes), strict=True):
                yield picture.file, picture.restore(found)
            progress.update(len(batch))
