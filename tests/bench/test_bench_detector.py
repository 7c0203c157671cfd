"""Whole detectors taken apart and beside torchvision's."""

import subprocess
import time

import pytest
import torch
from torch import nn

from boxmatch.bench import detector, detector_memory
from boxmatch.bench.detector import REFERENCE, TRAIN_PHASES, DetectorRow, bench_detector
from boxmatch.bench.detector_memory import DetectorMemory, MemoryTask, measure_memory
from boxmatch.bench.detector_models import THEIRS, timed_detector
from boxmatch.bench.detector_step import random_batch
from boxmatch.bench.phase_clock import PhaseClock
from boxmatch.bench.random_scores import spread_scores


def test_a_phase_inside_another_is_counted_once():
    clock = PhaseClock()
    inner = clock.wrap("inner", lambda: time.sleep(0.03))
    start = time.perf_counter()
    with clock.phase("outer"):
        time.sleep(0.01)
        inner()
        inner()
    whole = 1000 * (time.perf_counter() - start)
    spent = clock.take()
    assert spent["inner"].wall >= 60 and 10 <= spent["outer"].wall <= whole - spent["inner"].wall
    assert clock.take() == {}


def test_a_phase_that_fails_does_not_leave_the_clock_running():
    clock = PhaseClock()
    with pytest.raises(ZeroDivisionError), clock.phase("broken"):
        _ = 1 / 0
    with clock.phase("next"):
        time.sleep(0.01)
    assert clock.take()["next"].wall >= 10


def test_scores_spread_so_that_the_wanted_number_reaches_the_threshold():
    branch, features = nn.Conv2d(8, 5, 3, padding=1), torch.randn(1, 8, 20, 20)
    spread_scores(branch, lambda: branch(features), least_probability=0.2, candidates=50)
    with torch.no_grad():
        logits = branch(features)
    assert 49 <= int((logits.sigmoid() >= 0.2).sum()) <= 51  # the last one lies on the threshold
    deviation = logits.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(deviation, torch.ones(5), rtol=1e-3, atol=0)


def test_all_models_have_the_same_backbone_and_train_the_same_part_of_it():
    ours = timed_detector("atss", (64, 64), backbone="resnet18").module.backbone
    learned = sum(weight.numel() for weight in ours.parameters() if weight.requires_grad)
    for name in THEIRS:
        theirs = timed_detector(name, (64, 64), backbone="resnet18").module.backbone.body
        assert sum(weight.numel() for weight in theirs.parameters() if weight.requires_grad) == learned
        assert not any(isinstance(part, nn.BatchNorm2d) for part in theirs.modules())


def test_targets_and_pictures_are_those_asked_for():
    images, targets = random_batch((64, 96), 2, 3)
    assert images.shape == (2, 3, 64, 96) and targets.per_image().tolist() == [3, 3]
    assert targets.boxes[:, 2].max() <= 96 and targets.boxes[:, 3].max() <= 64


@pytest.fixture(scope="module")
def rows() -> dict[str, DetectorRow]:
    """One round of a voting detector and of torchvision's FCOS, without the processes for the memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "measure_memory", lambda task: DetectorMemory(7.0, 5.0))
        done: list[str] = []
        measured = bench_detector(
            ["paa", REFERENCE], (64, 64), 2, boxes=2, rounds=1, backbone="resnet18", measured=done.append
        )
    assert len(done) == 2 * (2 + 1)
    return {row.model: row for row in measured}


def test_phases_of_a_step_make_the_step(rows):
    for row in rows.values():
        for kind in ("wall", "processor"):
            parts = [getattr(getattr(row, phase), kind) for phase in TRAIN_PHASES]
            assert min(parts) > 0 and sum(parts) == pytest.approx(getattr(row.step, kind))
            whole = getattr(row.inference, kind)
            assert getattr(row.network, kind) + getattr(row.postprocess, kind) == pytest.approx(whole)
        share = (row.assign.processor + row.loss.processor) / row.step.processor
        assert row.assign_loss_share == pytest.approx(share)
        assert row.detections > 0 and row.train_mebibytes == 7.0 and row.note is None


def test_ratios_are_those_to_torchvisions_fcos(rows):
    paa, reference = rows["paa"], rows[REFERENCE]
    assert reference.step_ratio == 1 and reference.vote_share is None
    assert paa.step_ratio == pytest.approx(paa.step.processor / reference.step.processor)
    assert paa.inference_ratio == pytest.approx(paa.inference.processor / reference.inference.processor)
    assert -0.5 < paa.vote_share < 1


def test_a_batch_that_would_not_fit_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr(detector, "measure_memory", lambda task: DetectorMemory(3000.0, 1000.0))
    monkeypatch.setattr(detector, "available_mebibytes", lambda: 4000.0)
    (row,) = bench_detector(["atss"], (64, 64), 8, rounds=1, backbone="resnet18")
    assert "left out: needs about" in row.note and "4000 MiB are free" in row.note
    assert row.step is None and row.step_ratio is None


def test_sizes_that_torchvision_would_pad_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        bench_detector(["atss"], (64, 100), 1)
    with pytest.raises(ValueError, match="1 or more"):
        bench_detector(["atss"], (64, 64), 1, rounds=0)


def test_a_memory_process_that_fails_says_why(monkeypatch):
    failed = subprocess.CompletedProcess([], 137, stdout="", stderr="Traceback\nMemoryError: no more\n")
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: failed)
    with pytest.raises(RuntimeError, match="of paa ended with code 137: MemoryError: no more"):
        measure_memory(MemoryTask("paa", "resnet18", 64, 64, 1, 1, 1))


def test_without_the_files_of_linux_there_is_no_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(detector_memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(detector_memory, "_MACHINE", tmp_path / "none")
    assert measure_memory(MemoryTask("atss", "resnet18", 32, 32, 1, 1, 1)) is None
    assert detector_memory.available_mebibytes() is None


@pytest.mark.slow
def test_memory_in_training_is_more_than_in_inference_and_than_all_weights():
    """A process of its own; ResNet-18 with pyramid and head has 19 million weights that learn."""
    memory = measure_memory(MemoryTask("atss", "resnet18", 64, 64, 1, 2, 1))
    assert memory is not None and memory.train > memory.inference > 19e6 * 4 / 2**20
    assert memory.train > 3 * 18e6 * 4 / 2**20
