"""Reads the golden loss files of dual weighting (`c*.npz`) into the package's types.

Letters as in their README: B images, N points (priors here), C classes, G boxes of the file, P pairs.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxmatch.assign import DualWeight
from boxmatch.losses import DualWeightLoss
from boxmatch.priors import PointGrid, Priors
from boxmatch.structures import Assignment, Predictions, Targets

TERMS = {"class_positive": "loss_cls_pos", "box": "loss_loc", "class_negative": "loss_cls_neg"}
"""Our name of each loss, and theirs."""

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""The tolerances of the README; the second is times the largest value of the array."""


def assert_near(found: Tensor | np.ndarray, expected: np.ndarray) -> None:
    """Equal within the tolerances of the README."""
    found = np.asarray(found.detach() if isinstance(found, Tensor) else found)
    scale = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE * scale)


@dataclass(frozen=True, eq=False)
class DWCase:
    """One file: its arrays, and what the package makes of them."""

    arrays: dict[str, np.ndarray]
    read: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, file: Path) -> "DWCase":
        """Load a file."""
        if not file.is_file():
            pytest.fail(f"expected golden files {file}, got none")
        with np.load(file) as content:
            return cls({name: content[name] for name in content.files})

    def array(self, name: str) -> np.ndarray:
        """An array as it is in the file."""
        if name not in self.arrays:
            pytest.fail(f"expected array {name} in the golden file, got {sorted(self.arrays)}")
        self.read.add(name)
        return self.arrays[name]

    def tensor(self, name: str) -> Tensor:
        """An array; integers as int64."""
        values = torch.from_numpy(self.array(name))
        return values if values.is_floating_point() else values.long()

    @cached_property
    def images(self) -> int:
        """B."""
        return len(self.array("cls_logit_x16"))

    @cached_property
    def priors(self) -> Priors:
        """The points; their grid covers the image."""
        strides, sizes = self.array("strides").tolist(), self.array("level_hw").tolist()
        height, width = self.array("image_hw").tolist()
        assert [tuple(size) for size in sizes] == [(-(-height // s), -(-width // s)) for s in strides]
        return PointGrid(strides)([tuple(size) for size in sizes])

    @cached_property
    def targets(self) -> Targets:
        """The boxes in file order."""
        boxes = self.tensor("gt_boxes")
        return Targets(
            boxes=boxes,
            labels=self.tensor("gt_labels"),
            image=self.tensor("gt_image"),
            ignore=torch.zeros(len(boxes), dtype=torch.bool),
            batch_size=self.images,
        )

    @cached_property
    def reversed_targets(self) -> Targets:
        """The boxes of each image backwards."""
        targets = self.targets
        order = torch.arange(len(targets) - 1, -1, -1)
        return targets.select(order[targets.image[order].argsort(stable=True)])

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits (B, N, C), objectness (B, N, 1), distances (B, N, 4) in pixels; fresh leaves."""
        logits = self.tensor("cls_logit_x16").float() / 16
        assert logits.shape[2] == int(self.array("num_classes"))
        quality = self.tensor("obj_logit_x16").float() / 16
        distances = self.tensor("reg_dist_x8").float() / 8
        return logits.requires_grad_(), quality.requires_grad_(), distances.requires_grad_()

    def predictions(self, logits: Tensor, quality: Tensor, distances: Tensor) -> Predictions:
        """With boxes decoded from the distances."""
        centers = self.priors.centers
        boxes = torch.cat((centers - distances[..., :2], centers + distances[..., 2:]), dim=2)
        return Predictions(logits, distances, boxes, quality.squeeze(2))

    def assigner(self, **options: object) -> DualWeight:
        """The published rule with the file's kind of prior, options replaced."""
        bag = "soft_center" if bool(self.array("soft_prior")) else "hard_center"
        return DualWeight.official(**{"bag": bag, **options})

    def assignment(self, targets: Targets | None = None, **options: object) -> Assignment:
        """The published rule on the file's inputs."""
        predictions = self.predictions(*self.inputs())
        return self.assigner(**options)(
            self.priors, self.targets if targets is None else targets, predictions
        )

    def losses(self, targets: Targets | None = None, **options: object) -> dict[str, Tensor]:
        """The terms of the published loss, options of the assigner replaced."""
        targets = self.targets if targets is None else targets
        predictions = self.predictions(*self.inputs())
        assignment = self.assigner(**options)(self.priors, targets, predictions)
        return DualWeightLoss.official()(self.priors, targets, predictions, assignment)

    def in_file_order(self, assignment: Assignment) -> np.ndarray:
        """Positions of our pairs, sorted by image, point, box."""
        keys = (assignment.pairs.gt, assignment.pairs.prior, assignment.image)
        return np.lexsort([key.numpy() for key in keys])
