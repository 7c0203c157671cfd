"""Two processes that train together over gloo, as forks of one program that has imported everything already.

Run as a program by test_distributed.py with a folder; what each process found goes to FOLDER/CASE-RANK.json.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))

from toy import ToyData, ToyDetector

import boxmatch.train
from boxmatch.assign import ATSS, PAA, Assigner, DualWeight, DynamicATSS
from boxmatch.losses import DenseLoss, DualWeightLoss
from boxmatch.models import YOLO, Detector, simple_yolo
from boxmatch.models.dense import DenseDetector
from boxmatch.structures import Detections, Targets
from boxmatch.train import ScheduleOptions, TrainerOptions, fit, validate

WORLD = 2
OPTIONS = TrainerOptions(max_epochs=2, accelerator="cpu", progress=False, tensorboard=False)


def detector() -> YOLO:
    """A small YOLO whose batch norms use fixed statistics: those of a batch differ between processes."""
    torch.manual_seed(0)
    network = simple_yolo(["a", "b"], channel_sparsity=0.25).eval()
    # The loss is in training, which is when it averages over all processes.
    network.loss.train()
    return network


def dense(assigner: Assigner, loss: nn.Module, **options: Any) -> DenseDetector:
    """A small dense detector with frozen statistics."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"backbone": "resnet18", "channels": 32, "tower_length": 1, "frozen_stages": 0}
    return DenseDetector(["a", "b"], assigner=assigner, loss=loss, norm="eval", **small, **options)


def make(name: str) -> Detector:
    """The detector of a case, in training as far as its loss is concerned."""
    match name:
        case "yolo":
            return detector()
        case "atss":
            return dense(ATSS(), DenseLoss(quality_target="centerness"))
        case "dynamic_atss":
            options: dict[str, Any] = {"class_loss": "qfl", "class_target": "iou", "quality_target": "iou"}
            return dense(DynamicATSS(), DenseLoss(**options))
        case "paa":
            return dense(PAA(), DenseLoss(quality_target="iou"))
    # The running mean of the background term is of one rank; as published, there is none.
    return dense(DualWeight(), DualWeightLoss.official(), box_numbers="distances", refine="zeros")


def pictures(empty: bool) -> tuple[Tensor, Targets]:
    """Four pictures; with `empty`, the two of rank 1 have no boxes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 255, (4, 3, 64, 64), generator=generator, dtype=torch.uint8)
    boxes = [[[4, 4, 30, 40]], [[10, 20, 60, 60], [0, 0, 20, 12]], [[30, 30, 50, 62]], []]
    if empty:
        boxes[2] = []
    return images, Targets.from_lists(boxes, [[i % 2 for i in range(len(b))] for b in boxes])


class Loss(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wants."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Targets) -> Tensor:
        return torch.stack(list(self.network.losses(images, targets).values())).sum()


def gradients(rank: int | None, empty: bool, name: str = "yolo") -> dict[str, Tensor]:
    """Gradients of the four pictures: of one process (rank None), or of this process's two."""
    images, targets = pictures(empty)
    network = make(name)
    if rank is None:
        Loss(network)(images, targets).backward()
    else:
        mine = targets.image // 2 == rank
        image = targets.image[mine] - 2 * rank
        part = Targets(targets.boxes[mine], targets.labels[mine], image, targets.ignore[mine], 2)
        parallel = DistributedDataParallel(Loss(network))
        parallel(images[2 * rank : 2 * rank + 2], part).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def compare_gradients(rank: int, folder: Path) -> dict[str, Any]:
    """Largest difference to one process with the joined batch, in parts of the weight's largest gradient."""
    torch.distributed.init_process_group("gloo")
    found = {}
    for empty in (False, True):
        both = gradients(rank, empty)
        # Without the process group the same code is that of a single process.
        if rank == 0:
            torch.save(both, folder / f"both-{empty}.pt")
    torch.distributed.destroy_process_group()
    if rank == 0:
        for empty in (False, True):
            both, alone = torch.load(folder / f"both-{empty}.pt", weights_only=True), gradients(None, empty)
            assert both.keys() == alone.keys()
            worst = max(float((both[n] - g).abs().max() / (g.abs().max() + 1e-12)) for n, g in alone.items())
            found[f"empty={empty}"] = worst
    return found


def compare_dense_gradients(rank: int, folder: Path) -> dict[str, Any]:
    """The same for the dense detectors, where rank 1 has one box or none; and weights without a gradient."""
    torch.distributed.init_process_group("gloo")
    cases = [(n, empty) for n in ("atss", "dynamic_atss", "paa", "dual_weight") for empty in (True, False)]
    both = {case: gradients(rank, case[1], case[0]) for case in cases}
    torch.distributed.destroy_process_group()
    found: dict[str, Any] = {}
    for name, empty in cases:
        shared = both[name, empty]
        without = [n for n, p in make(name).named_parameters() if p.requires_grad and n not in shared]
        alone = gradients(None, empty, name) if rank == 0 else {}
        largest = max((float(g.abs().max()) for g in alone.values()), default=1.0)
        worst = max((float((shared[n] - g).abs().max()) for n, g in alone.items()), default=0.0)
        found[f"{name}, empty={empty}"] = {"worst": worst / largest, "without": without}
    return found


class Finder(ToyDetector):
    """Finds the bright square a few pixels beside its place, so that the metric has something to say."""

    def predict(self, images: Tensor, *, sizes: Tensor | None = None) -> list[Detections]:
        found = []
        for image in images:
            bright = (image[0] > 200).nonzero()
            (top, left), (bottom, right) = bright.amin(0).tolist(), (bright.amax(0) + 1).tolist()
            box = torch.tensor([[left + 1.0, top, right + 1.0, bottom]])
            score = torch.tensor([(left % 7 + 1) / 8])
            found.append(Detections(box, score, torch.tensor([int(right - left > 10)])))
        return found


def train_toy(rank: int, folder: Path) -> dict[str, Any]:
    """A run over an odd number of pictures, half of them empty; its numbers and those of one process."""
    torch.manual_seed(0)
    data = ToyData(count=11, batch_size=2, empty_from=6)
    schedule = ScheduleOptions(warmup_epochs=1)
    result = fit(Finder(), data, output=folder / "run", trainer=OPTIONS, schedule=schedule)
    weights = torch.cat([p.flatten() for p in result.detector.parameters()])
    numbers = {key: result.last[key] for key in ("map", "map_50", "pictures", "boxes", "per_class")}
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        os.environ.pop(name)
    rank_zero_only.rank = 0
    alone = validate(result.detector, ToyData(count=11, batch_size=2, empty_from=6), trainer=OPTIONS)
    return {
        "sum": float(weights.double().sum()),
        "two": numbers,
        "one": {key: alone[key] for key in numbers},
        "steps": result.last["step"],
    }


class NotFinite(ToyDetector):
    """Gives a loss that is not finite in the third step, on rank 1 only."""

    calls = 0

    def losses(self, *arguments: Any) -> dict[str, Tensor]:
        self.calls += 1
        factor = float("nan") if self.calls == 3 and torch.distributed.get_rank() == 1 else 1.0
        return {name: value * factor for name, value in super().losses(*arguments).items()}


def diverge(rank: int, folder: Path) -> dict[str, Any]:
    """What each process says when one of them diverges."""
    try:
        fit(NotFinite(), ToyData(), output=folder / "diverged", trainer=OPTIONS)
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"error": None}


def in_two(case: Callable[[int, Path], dict[str, Any]], folder: Path) -> None:
    """Run a case in two forks with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(WORLD):
        child = os.fork()
        if child == 0:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "GROUP_RANK": "0",
                "WORLD_SIZE": str(WORLD),
                "LOCAL_WORLD_SIZE": str(WORLD),
                "TORCHELASTIC_RUN_ID": "test",
            }
            rank_zero_only.rank = rank
            try:
                found = case(rank, folder)
                (folder / f"{case.__name__}-{rank}.json").write_text(json.dumps(found))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * WORLD, f"{case.__name__}: {codes}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    boxmatch.train._draw = lambda folder: None  # type: ignore[assignment]  # curves take longer than these runs
    for each in (compare_gradients, compare_dense_gradients, train_toy, diverge):
        in_two(each, Path(sys.argv[1]))
