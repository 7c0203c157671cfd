"""Pictures of any size through a detector, in batches of one input size."""

import glob
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from boxmatch.commands.errors import EXIT_DATA, CommandError
from boxmatch.commands.run_folders import run_config
from boxmatch.data.batch import restore_boxes
from boxmatch.data.geometry import Fill, Placement, Size, draw, fitted_size
from boxmatch.data.images import SUFFIXES
from boxmatch.data.pictures import read_pixels
from boxmatch.data.resize import ShortSide
from boxmatch.errors import DataError
from boxmatch.models.detector import Detector
from boxmatch.models.yolo import YOLO
from boxmatch.postprocess import PostProcess
from boxmatch.strict_yaml import load_yaml
from boxmatch.structures import Detections

# Deepest stride: inputs are padded to a multiple of it, so that every map fits the next.
MULTIPLE = 32
DEFAULT_SIZE = 416
MEAN_COLOR = (123, 116, 103)  # of ImageNet, as in the recipes of COCO: padding is zero for the network
YOLO_NMS_IOU = 0.4  # the original's predict task: fewer double boxes than with the 0.6 of its evaluation
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


@dataclass(frozen=True)
class InputRule:
    """How pictures become inputs of one network.

    Args:
        side: longest side, then the picture lies in the middle; or a rule, then in the upper left corner.
        fill: value of the pixels beside the picture.
    """

    side: int | ShortSide
    fill: Fill = 0

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width of the largest input of a picture that is wider than tall."""
        if isinstance(self.side, int):
            height, width = self.side, self.side
        else:
            height, width = self.side.short_side, self.side.long_side
        return math.ceil(height / MULTIPLE) * MULTIPLE, math.ceil(width / MULTIPLE) * MULTIPLE


def input_rule(weights: Path, detector: Detector) -> InputRule:
    """As the run that the weights lie in evaluated; without a run, as the method is published."""
    config = run_config(weights)
    if config is None:
        if isinstance(detector, YOLO):
            return InputRule(DEFAULT_SIZE)
        return InputRule(ShortSide(), MEAN_COLOR)
    data = (load_yaml(config.read_text(encoding="utf-8")) or {}).get("data", {})
    fill = data.get("fill", 0)
    return InputRule(_trained_side(data), tuple(fill) if isinstance(fill, list) else fill)


def _trained_side(data: Mapping[str, Any]) -> int | ShortSide:
    rule = data.get("resize")
    if rule is not None:
        return ShortSide(rule["short_side"], rule["long_side"])
    size = data.get("image_size", DEFAULT_SIZE)
    return int(max(size)) if isinstance(size, list) else int(size)


def set_thresholds(
    detector: Detector, *, min_score: float | None, nms_iou: float | None, max_detections: int
) -> float:
    """Make a detector give what a person wants to see, and say from which score on that is.

    None stands for the method's own: the simple YOLO's published prediction suppresses from an IoU of 0.4 on,
    instead of the 0.6 of its evaluation; others keep what they were saved with.
    """
    postprocess = detector.postprocess
    least = round(postprocess.shown_score, 2) if min_score is None else min_score
    threshold = least
    if type(postprocess) is not PostProcess:
        # Its threshold may look at something else than the score, and lower scores may vote.
        threshold = min(least, postprocess.score_threshold)
    elif nms_iou is None:
        nms_iou = YOLO_NMS_IOU
    detector.postprocess = replace(
        postprocess,
        score_threshold=threshold,
        nms_iou=postprocess.nms_iou if nms_iou is None else nms_iou,
        max_detections=max_detections,
    )
    return least


@dataclass(frozen=True)
class Input:
    """One picture as the network gets it, and the way back.

    Args:
        file: where it came from.
        canvas: the picture on a canvas of one colour.
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
        return with_extent(Detections(boxes, detections.scores.cpu(), detections.labels.cpu()))


def with_extent(found: Detections) -> Detections:
    """Without what lay beside the picture and became a line when it was clipped."""
    return chosen(found, (found.boxes[:, 2:] - found.boxes[:, :2] >= LEAST_SIDE).all(1))


def chosen(found: Detections, rows: Bool[Tensor, "K"]) -> Detections:
    """The detections for which `rows` is true."""
    return Detections(found.boxes[rows], found.scores[rows], found.labels[rows])


def read_input(file: Path, rule: InputRule) -> Input:
    """Read a picture, bring it to size, and lay it on a canvas of multiples of 32.

    Args:
        file: the picture.
        rule: its size, and the colour of the canvas.

    Raises:
        DataError: the file cannot be read.
    """
    pixels = read_pixels(file)
    original = (pixels.shape[1], pixels.shape[0])
    side = rule.side
    if isinstance(side, ShortSide):
        width, height = side.size(original, side.short_side)
        left, top = 0, 0
    else:
        width, height = fitted_size(original, (side, side))
        left, top = (_padded(width) - width) // 2, (_padded(height) - height) // 2
    canvas = torch.tensor(rule.fill, dtype=torch.uint8).expand(_padded(height), _padded(width), 3).clone()
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
        rule: their size, and the colour of the canvas.
        batch_size: pictures of a batch, at most.
    """

    def __init__(self, files: Sequence[Path], rule: InputRule, batch_size: int) -> None:
        self.files, self.rule, self.batch_size = files, rule, batch_size
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[list[Input]]:
        waiting: dict[tuple[int, ...], list[Input]] = defaultdict(list)
        for file in self.files:
            try:
                picture = read_input(file, self.rule)
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
