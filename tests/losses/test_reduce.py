"""Normalisers over all ranks: two gloo processes learn what one process with the joined batch learns."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from yolo_scene import CODER, three_levels

from boxmatch.assign import NearbyGrid
from boxmatch.losses import YOLOLoss, mean_over_ranks
from boxmatch.structures import Predictions, Targets

CLASSES, FEATURES = 3, 6

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"objectness_average": "positives", "box_average": "all", "focal_loss_gamma": 0.0},
)

# Images of each rank: unequal numbers of boxes, one rank without any, no box at all.
SPLITS: tuple[tuple[tuple[int, ...], ...], ...] = (((0, 1), (2, 3)), ((0, 2), (1, 4)), ((1,), (4,)))

BOXES = [
    [[4.0, 6.0, 20.0, 30.0], [30.0, 8.0, 90.0, 60.0]],
    [],
    [[10.0, 10.0, 40.0, 50.0], [50.0, 20.0, 60.0, 34.0], [0.0, 0.0, 90.0, 62.0]],
    [[40.0, 30.0, 60.0, 60.0]],
    [],
]


def gradient(network: nn.Module, images: tuple[int, ...], options: dict[str, Any]) -> Tensor:
    """Gradient of the weights after one step on some images, with some priors ignored."""
    priors = three_levels()
    random = torch.Generator().manual_seed(0)
    features = torch.randn((len(BOXES), len(priors), FEATURES), generator=random)[list(images)]
    ignored = (torch.rand((len(BOXES), len(priors)), generator=random) < 0.2)[list(images)]
    targets = Targets.from_lists([BOXES[i] for i in images], [[i % CLASSES] * len(BOXES[i]) for i in images])
    quality, deltas, logits = network(features).split((1, 4, CLASSES), dim=2)
    predictions = Predictions(logits, deltas, None, quality.squeeze(2))
    assignment = NearbyGrid(match_iou_thres=0.1)(priors, targets)
    ignored[assignment.image, assignment.pairs.prior] = False
    terms = YOLOLoss(**options)(priors, targets, predictions, replace(assignment, ignored=ignored), CODER)
    network.zero_grad()
    sum(terms.values()).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, 5 + CLASSES)


def work(rank: int, folder: str) -> None:
    """One rank: every split with every option; rank 0 keeps the averaged gradients."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),  # a rank that waits for ever fails instead
    )
    # No search for unused parameters: a loss that leaves one out would hang.
    model = DistributedDataParallel(network())
    gradients = [gradient(model, split[rank], options) for split in SPLITS for options in OPTIONS]
    counts = mean_over_ranks(torch.tensor([1.0, 10.0 * rank]))
    evaluation = YOLOLoss().eval()
    if rank == 0:  # alone: evaluation must not wait for the other rank
        evaluate(evaluation)
        torch.save({"gradients": gradients, "counts": counts}, f"{folder}/found.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def evaluate(loss: YOLOLoss) -> None:
    priors = three_levels()
    targets = Targets.from_lists(BOXES[:1], [[0, 1]])
    zeros = torch.zeros(1, len(priors), CLASSES)
    predictions = Predictions(zeros, zeros.new_zeros(1, len(priors), 4), None, zeros[..., 0])
    loss(priors, targets, predictions, NearbyGrid()(priors, targets), CODER)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    result: dict[str, Any] = torch.load(Path(folder) / "found.pt")
    return result


@pytest.mark.parametrize("options", range(len(OPTIONS)), ids=["as published", "over positives"])
@pytest.mark.parametrize(
    "split", range(len(SPLITS)), ids=["unequal boxes", "one rank without boxes", "no box at all"]
)
def test_two_ranks_learn_what_one_process_with_the_joined_batch_learns(
    found: dict[str, Any], split: int, options: int
) -> None:
    joined = sum(SPLITS[split], ())
    expected = gradient(network(), joined, OPTIONS[options])
    assert_close(found["gradients"][split * len(OPTIONS) + options], expected, rtol=1e-4, atol=1e-6)


def test_counts_are_averaged_over_the_ranks(found: dict[str, Any]) -> None:
    assert found["counts"].tolist() == [1.0, 5.0]


def test_without_ranks_counts_stay_as_they_are() -> None:
    counts = torch.tensor([3.0, 0.0])
    assert mean_over_ranks(counts) is counts
