"""Reads the golden files of YOLOv3 into the package's own types.

Letters as in their README: layer K (0 has stride 32), image b, anchor slot a, row j, column i. Our levels
run from fine to coarse, as the list of anchors does, so layer K is level 2 - K; our priors are ordered level
→ row → column → anchor.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxmatch.assign import YOLOv3
from boxmatch.boxes import cxcywh_to_xyxy
from boxmatch.coders import GridCoder
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Predictions, Targets

KINDS = ("case_*.npz", "post.npz", "transforms.npz")
"""Every kind of file that the README names."""


def yolov3_folder(config: pytest.Config) -> Path:
    """DIR/yolov3, or DIR itself where it has that name."""
    folder = Path(config.getoption("--golden-dir")).resolve()
    return folder if folder.name == "yolov3" else folder / "yolov3"


def parametrize_cases(metafunc: pytest.Metafunc) -> None:
    """Give `yolov3_file` one value per case and `kind` one per kind; for `pytest_generate_tests`.

    A folder that is not there is skipped with a reason; one that lacks a kind of file fails.
    """
    folder = yolov3_folder(metafunc.config)
    absent = pytest.mark.skipif(
        not folder.is_dir(), reason=f"no folder {folder}; say where with --golden-dir"
    )
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", [pytest.param(kind, marks=absent) for kind in KINDS], ids=KINDS)
    if "yolov3_file" in metafunc.fixturenames:
        files = sorted(folder.glob(KINDS[0])) or [folder / KINDS[0]]
        ids = [file.stem for file in files]
        metafunc.parametrize("yolov3_file", [pytest.param(file, marks=absent) for file in files], ids=ids)


@dataclass(frozen=True)
class YOLOv3Case:
    """One file: its arrays, and what the package makes of them."""

    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, file: Path) -> "YOLOv3Case":
        """Load a case file."""
        if not file.is_file():
            pytest.fail(f"expected golden files {file}, got none")
        with np.load(file) as content:
            return cls({name: content[name] for name in content.files})

    def array(self, name: str) -> Tensor:
        """An array of the file, integers as int64."""
        if name not in self.arrays:
            pytest.fail(f"expected array {name} in the golden file, got {sorted(self.arrays)}")
        values = torch.from_numpy(np.asarray(self.arrays[name]))
        return values if values.is_floating_point() else values.long()

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        return int(self.array("img_size"))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.array("num_classes"))

    @property
    def layers(self) -> list[int]:
        """The layers that are stored."""
        return self.array("layers").tolist()

    @cached_property
    def priors(self) -> Priors:
        """Anchors of all three layers, fine to coarse."""
        strides, masks = self.array("strides").tolist(), self.array("mask").tolist()
        anchors = [[tuple(self.array("anchors")[i].tolist()) for i in mask] for mask in reversed(masks)]
        sizes = [(self.side // stride,) * 2 for stride in reversed(strides)]
        return AnchorGrid(anchors, strides[::-1])(sizes, "cpu")

    @cached_property
    def targets(self) -> Targets:
        """The boxes in label order; the padding is left out."""
        labels, counts = self.array("labels"), self.array("n_gt").tolist()
        boxes = cxcywh_to_xyxy(labels[..., 1:].double() * self.side).float()
        return Targets.from_lists(
            [part[:count] for part, count in zip(boxes, counts)],
            [part[:count, 0].long() for part, count in zip(labels, counts)],
        )

    @property
    def assigner(self) -> YOLOv3:
        """The rule with the file's threshold."""
        return YOLOv3(ignore_iou=float(self.array("ignore_thresh")))

    def raw(self) -> dict[int, Tensor]:
        """Raw outputs (B, 3 · (5 + C), H, W) of the stored layers."""
        return {layer: self.array(f"l{layer}_raw_q") * self.array("raw_scale") for layer in self.layers}

    def predictions(self, raw: dict[int, Tensor]) -> Predictions:
        """Raw outputs in the order of the priors, decoded; layers that are not stored say 0 everywhere."""
        rows = []
        for number, level in enumerate(self.priors.levels):
            layer, shape = 2 - number, (len(self.array("n_gt")), 3, 5 + self.classes)
            values = raw[layer] if layer in raw else torch.zeros(shape[0], shape[1] * shape[2], 1, 1)
            values = values.float().expand(-1, -1, level.height, level.width)
            rows.append(values.unflatten(1, shape[1:]).permute(0, 3, 4, 1, 2).flatten(1, 3))
        deltas, quality, logits = torch.cat(rows, 1).split((4, 1, self.classes), dim=2)
        coder = GridCoder("single_grid", "exp", max_log_size=10.0)  # the original has no bound
        boxes = cxcywh_to_xyxy(coder.decode_all(deltas.detach(), self.priors))
        return Predictions(logits=logits, deltas=deltas, boxes=boxes, quality=quality.squeeze(2))

    def flat_prior(self, layer: int, slots: Tensor) -> Tensor:
        """Image · P + prior of positions (b, a, j, i) of a layer."""
        image, slot, row, column = slots.unbind(1)
        level, start = self.priors.levels[2 - layer], self._start(layer)
        prior = start + (row * level.width + column) * level.anchors + slot
        return image * len(self.priors) + prior

    def layer_of(self, prior: Tensor) -> Tensor:
        """Layer of each prior."""
        return 2 - self.priors.level[prior]

    def _start(self, layer: int) -> int:
        return sum(len(level) for level in self.priors.levels[: 2 - layer])
