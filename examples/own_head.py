"""Train a head of one's own: any module that gives logits and deltas, any assigner, a loss from the pairs.

Run `python examples/own_head.py`; it learns four pictures by heart and prints the loss.
"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from torchvision.ops import generalized_box_iou_loss

from boxmatch import Assigner, PointGrid, Predictions, Priors, Targets, TaskAligned


class OwnHead(nn.Module):
    """One feature map of stride 8, class logits and four distances in cells for each of its points."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 8, 8), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()
        )
        self.output = nn.Conv2d(64, classes + 4, 3, 1, 1)
        nn.init.constant_(self.output.bias[:classes], -3.0)  # rare at first

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Priors]:
        """Logits (B, P, C), deltas (B, P, 4), and the priors in the same order: row by row."""
        output = self.output(self.features(images))
        logits, deltas = output.flatten(2).mT.split([output.shape[1] - 4, 4], dim=2)
        return logits, deltas, PointGrid((8,))([output.shape[-2:]], output.device)


def losses(
    head: OwnHead, assigner: Assigner, images: torch.Tensor, targets: Targets
) -> dict[str, torch.Tensor]:
    """Class and box loss of a batch: the whole of what joins a head to an assigner."""
    logits, deltas, priors = head(images)
    reach = softplus(deltas) * priors.stride[:, None]  # pixels to the left, top, right, bottom
    boxes = torch.cat((priors.centers - reach[..., :2], priors.centers + reach[..., 2:]), dim=2)

    assignment = assigner(priors, targets, Predictions(logits, deltas, boxes))
    image, prior, gt = assignment.image, assignment.pairs.prior, assignment.pairs.gt
    wanted = torch.zeros_like(logits)
    wanted[image, prior, targets.labels[gt]] = assignment.score
    class_loss = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    box_loss = generalized_box_iou_loss(boxes[image, prior], targets.boxes[gt], reduction="none")
    total = assignment.weight.sum().clamp(min=1)
    return {
        "class": class_loss[~assignment.ignored].sum() / total,
        "box": (box_loss * assignment.weight).sum() / total,
    }


def pictures(count: int, size: int = 64) -> tuple[torch.Tensor, Targets]:
    """Dark noise with a bright rectangle, tall (class 0) or wide (class 1), and its box."""
    images = 0.3 * torch.rand(count, 3, size, size)
    boxes, labels = [], []
    for number, image in enumerate(images):
        x, y = torch.randint(0, size // 2, (2,)).tolist()
        width, height = (16, 30) if number % 2 == 0 else (30, 16)
        image[:, y : y + height, x : x + width] = 1.0
        boxes.append([[x, y, x + width, y + height]])
        labels.append([number % 2])
    return images, Targets.from_lists(boxes, labels)


def main(assigner: Assigner | None = None, steps: int = 150) -> list[float]:
    """Learn four pictures by heart; the loss of each step."""
    torch.manual_seed(0)
    head, (images, targets) = OwnHead(classes=2), pictures(4)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    history = []
    for step in range(steps):
        loss = torch.stack(list(losses(head, assigner or TaskAligned(), images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        if step % 30 == 0:
            print(f"step {step:3d}: loss {loss.item():.4f}")
    return history


if __name__ == "__main__":
    main()
