"""Reads the golden files of the one-stage dense detectors (ATSS, Dynamic ATSS, PAA) into the package's types.

The files hold boxes with inclusive pixel edges: (x1, y1, x2, y2) there is the plain box (x1, y1, x2 + 1,
y2 + 1) here, and anchors stand half a pixel to the right and below. What this helper returns is in plain
pixels unless it says `inclusive`. Letters: B images, G boxes of the whole file, P priors, L levels, N pairs.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxmatch.boxes import cxcywh_to_xyxy
from boxmatch.delta_coder import DeltaCoder
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Detections, Predictions, Targets

SYSTEMS = ("atss", "dynamic_atss", "paa")
STRIDES = (8, 16, 32, 64, 128)
ANCHOR_STRIDES = 8
"""Side of the only anchor of a cell, in strides."""

INCLUSIVE = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""What a box with inclusive edges lacks to the plain one."""

HEADS = ("cls_logits", "box_reg", "quality_logits")


def system_folder(config: pytest.Config, system: str) -> Path:
    """DIR/system, or DIR itself where it has that name."""
    folder = Path(config.getoption("--golden-dir")).resolve()
    return folder if folder.name == system else folder / system


def parametrize_cases(metafunc: pytest.Metafunc, *systems: str, pattern: str = "case*.npz") -> None:
    """Give `dense_file` one value per file; for `pytest_generate_tests` of a test module.

    A folder that is not there is skipped with a reason; one that holds no file of the kind fails.
    """
    if "dense_file" not in metafunc.fixturenames:
        return
    values = []
    for system in systems:
        folder = system_folder(metafunc.config, system)
        files = sorted(folder.glob(pattern))
        values += [pytest.param(file, id=f"{system}-{file.stem}") for file in files]
        if not folder.is_dir():
            reason = f"no folder {folder}; say where with --golden-dir"
            values.append(pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"{system}-missing"))
        elif not files:
            values.append(pytest.param(folder / pattern, id=f"{system}-{pattern}"))
    metafunc.parametrize("dense_file", values)


@dataclass(frozen=True, eq=False)
class DenseCase:
    """One file: its arrays, and what the package makes of them."""

    system: str
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, file: Path) -> "DenseCase":
        """Load a case file; the folder names the system."""
        if not file.is_file():
            pytest.fail(f"expected golden files {file}, got none")
        with np.load(file) as content:
            return cls(file.parent.name, {name: content[name] for name in content.files})

    def array(self, name: str) -> Tensor:
        """An array as it is in the file, halves as float32."""
        if name not in self.arrays:
            pytest.fail(f"expected array {name} in the golden file, got {sorted(self.arrays)}")
        values = torch.from_numpy(self.arrays[name])
        return values.float() if values.dtype == torch.float16 else values

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.arrays["num_classes"])

    @cached_property
    def coder(self) -> DeltaCoder:
        """The coder "BOX" of the detectors."""
        return DeltaCoder()

    @cached_property
    def priors(self) -> Priors:
        """Priors of the five levels."""
        anchors = [[(ANCHOR_STRIDES * stride, ANCHOR_STRIDES * stride)] for stride in STRIDES]
        sizes = [(height, width) for height, width in self.arrays["feature_sizes"].tolist()]
        return AnchorGrid(anchors, STRIDES, shift=0.5)(sizes, "cpu")

    @cached_property
    def targets(self) -> Targets:
        """The boxes, in file order: rows of `gt_boxes` are rows of the targets; labels count from 0."""
        count = self.array("gt_count")
        return Targets(
            boxes=self.array("gt_boxes") + INCLUSIVE,
            labels=self.array("gt_labels") - 1,
            image=torch.repeat_interleave(count),
            ignore=torch.zeros(int(count.sum()), dtype=torch.bool),
            batch_size=len(count),
        )

    @cached_property
    def first_row(self) -> Tensor:
        """First row of each image in the targets, (B,)."""
        count = self.array("gt_count")
        return count.cumsum(0) - count

    def heads(self, *, requires_grad: bool = False) -> dict[str, list[Tensor]]:
        """Raw maps (B, channels, h, w) of each level by name: cls_logits, box_reg, quality_logits."""
        return {
            head: [
                self.array(f"{head}_l{level}").requires_grad_(requires_grad) for level in range(len(STRIDES))
            ]
            for head in HEADS
        }

    def predictions(self, heads: dict[str, list[Tensor]] | None = None) -> Predictions:
        """Raw maps (the file's, if none are given) in the order of the priors, boxes decoded, not clipped."""
        heads = self.heads() if heads is None else heads
        logits, deltas, quality = (torch.cat([_rows(level) for level in heads[head]], 1) for head in HEADS)
        boxes = cxcywh_to_xyxy(self.coder.decode_all(deltas, self.priors))
        return Predictions(logits=logits, deltas=deltas, boxes=boxes, quality=quality.squeeze(2))

    def gt_index(self, name: str = "matched_gt") -> Tensor:
        """An array (B, P) of box numbers per image as rows of the targets; negative numbers stay."""
        index = self.array(name).long()
        return torch.where(index < 0, index, index + self.first_row[:, None])

    def class_index(self, name: str = "labels") -> Tensor:
        """An array (B, P) of labels as class indices; -1 for background."""
        return self.array(name).long() - 1

    @cached_property
    def positives(self) -> tuple[Tensor, Tensor]:
        """Image and prior of each positive, in the order of `pos_inds` and of every array `*_pos`."""
        place = self.array("pos_inds")
        return place // len(self.priors), place % len(self.priors)

    @cached_property
    def candidate_gt(self) -> Tensor:
        """Row in the targets of each entry of the arrays `cand_*`, flattened per image with boxes."""
        owners = self.array("gt_count").nonzero().squeeze(1).tolist()
        rows = [
            (int(self.first_row[image]) + torch.arange(count)).repeat_interleave(length)
            for image, (count, length) in zip(owners, self.array("cand_count").tolist(), strict=True)
        ]
        return torch.cat([torch.zeros(0, dtype=torch.int64), *rows])

    def candidates(self, name: str) -> Tensor:
        """An array `cand_*`, ordered by row of the targets, then prior, as the package orders its pairs."""
        order = (self.candidate_gt * len(self.priors) + self.array("cand_idx")).argsort()
        return self.candidate_gt[order] if name == "cand_gt" else self.array(name)[order]

    def losses(self) -> dict[str, float]:
        """The class, box and quality loss, weights included, for one GPU."""
        return dict(zip(("class", "box", "quality"), self.array("losses").tolist(), strict=True))

    def gradients(self, kind: str) -> dict[str, Tensor]:
        """Per head, its gradient's absolute ("l1") or signed ("sum") sum over each level, (L,) each."""
        short = dict(zip(HEADS, ("cls", "reg", "quality"), strict=True))
        return {head: self.array(f"grad_{kind}_{short[head]}") for head in HEADS}

    def detections(self, name: str) -> list[Detections]:
        """Per image, what `name` ("prenms", "det", "det_novote", "det_vote") holds; not sorted."""
        count = self.array(f"{name}_count").tolist()
        parts = (self.array(f"{name}_{part}").split(count) for part in ("boxes", "scores", "labels"))
        return [
            Detections(boxes + INCLUSIVE, scores, labels - 1)
            for boxes, scores, labels in zip(*parts, strict=True)
        ]


def inclusive(boxes: Tensor) -> Tensor:
    """Plain boxes with inclusive edges again, as the GIoU loss of these detectors sees them."""
    return boxes - INCLUSIVE


def _rows(level: Tensor) -> Tensor:
    """(B, channels, h, w) as (B, h · w, channels)."""
    return level.flatten(2).transpose(1, 2)
