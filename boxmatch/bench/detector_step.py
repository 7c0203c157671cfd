"""What is timed of a detector: one training step, one prediction, on random pictures."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD

from boxmatch.bench.detector_models import TimedDetector
from boxmatch.bench.phase_clock import Times
from boxmatch.bench.random_scores import spread_scores, tame_branches
from boxmatch.bench.standard_inputs import Kind, standard_inputs
from boxmatch.models.dense import STRIDES
from boxmatch.structures import Targets


def random_batch(
    size: tuple[int, int], batch_size: int, boxes: int
) -> tuple[Float[Tensor, "B 3 H W"], Targets]:
    """Noise, and boxes like those of COCO.

    Args:
        size: (height, width) in pixels.
        boxes: per picture.
    """
    squares = tuple(((8.0 * stride, 8.0 * stride),) for stride in STRIDES)
    kind = Kind("", *size, STRIDES, squares)
    targets = standard_inputs(kind, batch_size, boxes, predicted=False).targets
    images = torch.rand((batch_size, 3, *size), generator=torch.Generator().manual_seed(0))
    return images, targets


def prepare(model: TimedDetector, image: Float[Tensor, "1 3 H W"]) -> None:
    """Give random weights maps in range and scores that spread; see `random_scores`."""
    tame_branches(model.module)
    model.module.eval()
    spread_scores(model.class_logits, lambda: model.predict(image), least_probability=model.least_probability)


def sgd(module: nn.Module) -> SGD:
    """The published optimiser at a rate of 0: it does all its work, and the scores stay as they are."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return SGD(weights, lr=0.0, momentum=0.9, weight_decay=1e-4)


def train_step(
    model: TimedDetector, images: Float[Tensor, "B 3 H W"], targets: Targets, optimiser: SGD
) -> dict[str, Times]:
    """Forward, assign, loss, backward, optimiser: what each took for the whole batch."""
    clock = model.clock
    model.module.train()
    clock.take()
    with clock.phase("forward"):
        total = torch.stack(list(model.losses(images, targets).values())).sum()
    with clock.phase("backward"):
        total.backward()
    with clock.phase("optimiser"):
        optimiser.step()
        optimiser.zero_grad()
    return clock.take()


def inference(model: TimedDetector, images: Float[Tensor, "B 3 H W"]) -> tuple[dict[str, Times], list[int]]:
    """Network and post-processing for the whole batch, and how many objects are found on each picture."""
    clock = model.clock
    model.module.eval()
    clock.take()
    with clock.phase("network"):
        counts = model.predict(images)
    return clock.take(), counts
