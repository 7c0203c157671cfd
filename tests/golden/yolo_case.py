"""Reads the golden files of the simple-YOLO system into the package's own types.

Letters as in their README: layer i, image b, anchor a, row h, column w. Priors are ordered level → row →
column → anchor here and level → anchor → row → column there.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxmatch.assign import AllGrid, Assigner, NearbyGrid, SingleGrid
from boxmatch.coders import GridCoder
from boxmatch.losses import YOLOLoss
from boxmatch.priors import AnchorGrid, Priors
from boxmatch.structures import Assignment, Pairs, Predictions, Targets

ASSIGNERS = {"single_grid": SingleGrid, "nearby_grid": NearbyGrid, "all_grid": AllGrid}

# What the reference calls ciou and siou are not the published ones.
SIMILARITY = {"ciou": "ciou_lite", "siou": "siou_lite"}


def similarity_name(reference_name: str) -> str:
    """Our name of a similarity of the reference."""
    return SIMILARITY.get(reference_name, reference_name)


@dataclass(frozen=True)
class YOLOCase:
    """One file: its arrays, and what the package makes of them."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> "YOLOCase":
        """Load a case or NMS file."""
        with np.load(file) as content:
            arrays = {name: content[name] for name in content.files}
        return cls(arrays, json.loads(str(arrays.pop("config_json"))))

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        width, height = self.config["img_size"]
        assert width == height, "the golden files hold square inputs only"
        return int(width)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.config["num_class"])

    @cached_property
    def coder(self) -> GridCoder:
        """Coder of the case's method."""
        return GridCoder(self.config["label_assignment_method"])

    @cached_property
    def priors(self) -> Priors:
        """Priors of the three layers."""
        strides = self.config["strides"]
        sizes = [(self.side // stride, self.side // stride) for stride in strides]
        anchors = [[(width, height) for width, height in level] for level in self.config["anchor_boxes"]]
        return AnchorGrid(anchors, strides)(sizes, torch.device("cpu"))

    @cached_property
    def targets(self) -> Targets:
        """The boxes, in file order: rows of `bboxes` are rows of the targets."""
        rows = torch.from_numpy(self.arrays["bboxes"])
        center, size = (rows[:, 1:].double() * self.side).split(2, dim=1)
        return Targets(
            boxes=torch.cat((center - size / 2, center + size / 2), dim=1).float(),
            labels=torch.from_numpy(self.arrays["classes"][:, 1]).long(),
            image=rows[:, 0].long(),
            ignore=torch.zeros(len(rows), dtype=torch.bool),
            batch_size=int(self.config["batch_size"]),
        )

    def raw(self) -> list[Tensor]:
        """Raw outputs (B, A, h, w, 5 + C) of each layer, from the file or from the README's recipe."""
        if self.config.get("pred_source", "dense") == "dense":
            return [torch.from_numpy(self.arrays[f"pred_{i}"].astype(np.float32)) for i in range(3)]
        return [torch.from_numpy(self._recipe(i)) for i in range(3)]

    def _recipe(self, layer: int) -> np.ndarray:
        grid = self.side // self.config["strides"][layer]
        random = np.random.RandomState(self.config["pred_seed"] * 10 + layer)
        n = random.standard_normal((self.config["batch_size"], 3, grid, grid, 5 + self.classes))
        n[..., 0] = -2 + 1.5 * n[..., 0]
        n[..., 1:3] *= 0.7
        n[..., 3:5] = 0.25 + 0.15 * n[..., 3:5]
        n[..., 5:] = -1 + 1.5 * n[..., 5:]
        return n.astype(np.float32)

    def predictions(self, raw: list[Tensor]) -> Predictions:
        """Raw outputs in the order of the priors; boxes are not decoded."""
        rows = torch.cat([layer.permute(0, 2, 3, 1, 4).flatten(1, 3) for layer in raw], dim=1)
        quality, deltas, logits = rows.split((1, 4, self.classes), dim=2)
        return Predictions(logits=logits, deltas=deltas, quality=quality.squeeze(2))

    def decoded(self) -> Predictions:
        """Predictions with boxes (xyxy in pixels)."""
        predictions = self.predictions(self.raw())
        center, size = self.coder.decode_all(predictions.deltas, self.priors).split(2, dim=2)
        boxes = torch.cat((center - size / 2, center + size / 2), dim=2)
        return Predictions(predictions.logits, predictions.deltas, boxes, predictions.quality)

    def reference_rows(self) -> Tensor:
        """Prior of each row of the reference's decoded output, (P,)."""
        rows, offset = [], 0
        for level in self.priors.levels:
            index = offset + torch.arange(len(level)).view(level.height, level.width, level.anchors)
            rows.append(index.permute(2, 0, 1).flatten())
            offset += len(level)
        return torch.cat(rows)

    def assigner(self) -> Assigner:
        """The assigner with the case's options."""
        return ASSIGNERS[self.config["label_assignment_method"]](
            match_iou_thres=self.config["match_iou_thres"],
            filter_by_max_iou=self.config["filter_by_max_iou"],
        )

    def positives(self, layer: int) -> tuple[Tensor, Tensor]:
        """Image and prior of each positive of a layer, in the order of `pos_i`."""
        image, anchor, row, column = torch.from_numpy(self.arrays[f"pos_{layer}"].astype(np.int64)).unbind(1)
        level = self.priors.levels[layer]
        offset = sum(len(level) for level in self.priors.levels[:layer])
        return image, offset + (row * level.width + column) * level.anchors + anchor

    def candidates(self, layer: int) -> list[dict[int, float]]:
        """For each positive of a layer: rows of the boxes that may own it, with their IoU."""
        pointer = self.arrays[f"cand_ptr_{layer}"]
        gts, ious = self.arrays[f"cand_gt_{layer}"].tolist(), self.arrays[f"cand_iou_{layer}"].tolist()
        spans = zip(pointer[:-1].tolist(), pointer[1:].tolist(), strict=True)
        return [dict(zip(gts[start:end], ious[start:end], strict=True)) for start, end in spans]

    def assignment(self, owner: str) -> Assignment:
        """The assignment in the file: `owner` is "max_gt" (intended) or "ref_gt" (the reference)."""
        prior = torch.cat([self.positives(i)[1] for i in range(3)])
        gt = torch.cat([torch.from_numpy(self.arrays[f"{owner}_{i}"].astype(np.int64)) for i in range(3)])
        order = gt.argsort(stable=True)
        pairs = Pairs(gt[order], prior[order])
        return Assignment.hard(pairs, self.targets, len(self.priors.boxes), levels=self.priors.levels)

    def loss(self, **replaced: Any) -> YOLOLoss:
        """The loss with the case's options, some of them replaced."""
        names = ("focal_loss_gamma", "assign_conf_method", "lambda_obj", "lambda_coord", "lambda_scales")
        options = {name: self.config[name] for name in names}
        options["iou_loss_type"] = similarity_name(self.config["iou_loss_type"])
        return YOLOLoss(**{**options, **replaced})

    def loss_terms(self, raw: list[Tensor], assignment: Assignment, **replaced: Any) -> dict[str, Tensor]:
        """The weighted terms for raw outputs."""
        loss = self.loss(**replaced)
        return loss(self.priors, self.targets, self.predictions(raw), assignment, self.coder)

    def unweighted(self, raw: list[Tensor], assignment: Assignment, scales: tuple[float, ...]) -> list[float]:
        """Objectness, box and class loss summed over levels, without lambda_obj and lambda_coord."""
        terms = self.loss_terms(raw, assignment, lambda_obj=1.0, lambda_coord=1.0, lambda_scales=scales)
        return [float(terms[name]) for name in ("objectness", "box", "class")]
