"""Train a detector without any framework: pictures of one white rectangle each, drawn on the fly.

Run `python examples/plain_loop.py`; it prints the loss, and one detection beside the truth.
"""

import torch

from boxmatch.models import simple_yolo
from boxmatch.structures import Targets


def pictures(count: int, size: int = 96) -> tuple[torch.Tensor, Targets]:
    """Dark noise with a bright rectangle, and its box."""
    images = torch.randint(0, 90, (count, 3, size, size), dtype=torch.uint8)
    corner = torch.randint(0, size // 2, (count, 2))
    boxes = torch.cat([corner, corner + torch.randint(20, size // 2, (count, 2))], 1)
    for image, (x1, y1, x2, y2) in zip(images, boxes.tolist(), strict=True):
        image[:, y1:y2, x1:x2] = 255
    return images, Targets.from_lists(list(boxes[:, None]), [[0]] * count)


def main(steps: int = 100) -> None:
    """Train, then predict one new picture."""
    torch.manual_seed(0)
    detector = simple_yolo(["rectangle"], channel_sparsity=0.25).train()
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    for step in range(steps):
        images, targets = pictures(16)
        loss = sum(detector.losses(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step:3d}: loss {loss.item():.4f}")

    images, targets = pictures(1)
    found = detector.predict(images)[0]
    print("truth    ", targets.boxes[0].tolist())
    print("detection", [round(v) for v in found.boxes[0].tolist()], f"score {found.scores[0]:.2f}")


if __name__ == "__main__":
    main()
