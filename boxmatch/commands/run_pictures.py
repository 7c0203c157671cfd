"""The pictures a run leaves: predictions beside the truth, and the assignment of a training picture."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from boxmatch.data.batch import Batch, collate
from boxmatch.data.images import open_image
from boxmatch.data.module import DataModule
from boxmatch.metrics import GroundTruth
from boxmatch.models.detector import Detector
from boxmatch.visualize import (
    PageEntry,
    draw_assignment,
    draw_predictions_page,
)

PAGE_PICTURES = 8


def write_pictures(run: Path, detector: nn.Module, data: DataModule) -> None:
    """Write predictions.png and assignment.png into a run folder; `fit` has drawn the curves.

    Raises:
        ValueError: the detector is none of the package and has no priors to draw.
    """
    if not isinstance(detector, Detector):
        raise ValueError(f"only a boxmatch.models.Detector can be drawn, got {type(detector).__name__}")
    if len(data.annotations("val")):
        entries = page_entries(detector, data, "val", PAGE_PICTURES)
        least = round(detector.postprocess.shown_score, 2)
        page = draw_predictions_page(entries, detector.class_names, min_score=least)
        page.save(run / "predictions.png")
    draw_first_assignment(detector, first_batch(data), run / "assignment.png")


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` positions (or all) spread evenly over `count`."""
    wanted = min(count, wanted)
    return [round(step * (count - 1) / max(wanted - 1, 1)) for step in range(wanted)]


def page_entries(detector: Detector, data: DataModule, split: str, wanted: int) -> list[PageEntry]:
    """Pictures of a split with their truth and what the detector finds, in pixels of the files."""
    dataset = data.dataset(split)
    annotations = dataset.annotations
    entries = []
    was_training = detector.training
    detector.eval()
    for index in spread(len(dataset), wanted):
        batch = collate([dataset.sample(0, index)])
        with torch.inference_mode():
            found = detector.predict(batch.images.to(detector.mean.device), sizes=batch.picture_sizes)
        restored = batch.restore(found)[0].to("cpu")
        rows = annotations.rows(index)
        truth = GroundTruth(
            torch.from_numpy(annotations.boxes[rows]),
            torch.from_numpy(annotations.labels[rows]).long(),
            torch.from_numpy(annotations.ignore[rows]),
        )
        entries.append(
            PageEntry(open_image(annotations.file(index)), truth, restored, annotations.name(index))
        )
    detector.train(was_training)
    return entries


def first_batch(data: DataModule) -> Batch:
    """The first batch of the training stream."""
    loader: Any = data.train_dataloader()
    return next(iter(loader))


def draw_first_assignment(detector: Detector, batch: Batch, file: Path) -> None:
    """The assignment of the picture of a batch that has the median number of boxes."""
    priors = detector.priors(batch.images)
    counts = batch.targets.per_image()
    picture = int(counts.argsort(stable=True)[len(counts) // 2])
    device = detector.mean.device
    moved = batch.to(device)
    predictions = None
    if detector.assigner.uses_predictions:
        with torch.no_grad():
            predictions = detector(moved.images)
    assignment = detector.assign(priors, moved.targets, predictions)
    figure = draw_assignment(
        batch.images[picture],
        moved.targets,
        assignment,
        priors,
        picture=picture,
        class_names=detector.class_names,
        title=f"{type(detector.assigner).__name__}: who learns what",
    )
    figure.savefig(file)
