"""Multi-scale testing from the command line: files read whole, looked at in all sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxmatch.commands.errors import UsageError
from boxmatch.data.annotations import Annotations
from boxmatch.data.pictures import read_pixels
from boxmatch.errors import DataError
from boxmatch.metrics import EvaluationSettings, MeanPrecision, ground_truths
from boxmatch.multi_scale import MultiScale, Scale, published_scales
from boxmatch.structures import Detections


def read_scales(text: str) -> Sequence[Scale | int]:
    """The sizes that `--multi_scale` names: "published", or shorter sides as in "320,416,512".

    Raises:
        UsageError: the text is neither.
    """
    if text == "published":
        return published_scales()
    try:
        sides = [int(word) for word in text.split(",")]
    except ValueError:
        sides = []
    if not sides or min(sides) < 1:
        raise UsageError(f"--multi_scale: expected published or shorter sides like 320,416,512, got {text!r}")
    return sides


def predict_files(
    multi_scale: MultiScale, files: Sequence[Path], problems: list[str]
) -> Iterator[tuple[Path, Detections]]:
    """Each picture with its detections in its own pixels; files that cannot be read go to `problems`."""
    from tqdm.auto import tqdm

    count = multi_scale.batch_size
    with tqdm(total=len(files), unit="picture", disable=None) as progress:
        for start in range(0, len(files), count):
            pictures = {}
            for file in files[start : start + count]:
                try:
                    pictures[file] = read_pixels(file).permute(2, 0, 1)
                except DataError as error:
                    problems.append(str(error))
            yield from zip(pictures, multi_scale(list(pictures.values())), strict=True)
            progress.update(min(count, len(files) - start))


def evaluate_files(
    multi_scale: MultiScale, annotations: Annotations, settings: EvaluationSettings
) -> dict[str, Any]:
    """COCO precision of a data set's pictures, as `evaluate` gives it.

    Raises:
        DataError: a picture cannot be read.
    """
    postprocess = multi_scale.detector.postprocess
    settings = replace(settings, score_threshold=postprocess.score_threshold, nms_iou=postprocess.nms_iou)
    metric = MeanPrecision(multi_scale.class_names, settings)
    places = {annotations.file(index): index for index in range(len(annotations))}
    problems: list[str] = []
    for file, found in predict_files(multi_scale, list(places), problems):
        metric.update([places[file]], [found], ground_truths(annotations, [places[file]]))
    if problems:
        raise DataError(problems[0])
    return metric.compute()
