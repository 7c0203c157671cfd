"""The training step taken apart."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from boxmatch.bench.step import PHASES, bench_step
from boxmatch.data.batch import Batch, Sample, collate
from boxmatch.models import simple_yolo


def batch() -> Batch:
    """Two pictures with two boxes and none."""
    one = np.array([[4, 4, 30, 40], [10, 20, 60, 60]], dtype=np.float32)
    samples = [
        Sample(
            image=torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8),
            boxes=boxes,
            labels=np.zeros(len(boxes), dtype=np.int64),
            ignore=np.zeros(len(boxes), dtype=bool),
            index=number,
            image_id=number,
            original_size=(64, 64),
            scale=(1.0, 1.0),
            offset=(0.0, 0.0),
        )
        for number, boxes in enumerate((one, one[:0]))
    ]
    return collate(samples)


def test_every_phase_is_measured_and_the_shares_make_a_whole():
    detector = simple_yolo(["a"], channel_sparsity=0.25)
    before = detector.state_dict()["det_head.heads.0.weight"].clone()
    rows = bench_step(detector, [batch()], steps=2)
    assert tuple(row.phase for row in rows) == PHASES
    assert sum(row.share for row in rows) == pytest.approx(1)
    times = {row.phase: row.milliseconds for row in rows}
    assert times["backward"] > times["assign"] > 0
    assert (rows[0].steps, rows[0].batch_size, rows[0].size, rows[0].boxes) == (2, 2, (64, 64), 1.0)
    assert not torch.equal(before, detector.state_dict()["det_head.heads.0.weight"])
    assert json.loads(json.dumps([asdict(row) for row in rows]))[0]["phase"] == "data"


def test_a_loader_without_batches_is_refused():
    with pytest.raises(ValueError, match="expected a loader with batches"):
        bench_step(simple_yolo(["a"], channel_sparsity=0.25), [], steps=1)
    with pytest.raises(ValueError, match="steps: expected 1 or more"):
        bench_step(simple_yolo(["a"], channel_sparsity=0.25), [batch()], steps=0)
