"""What a network costs, counted without running it."""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def multiply_accumulates(network: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulate operations of all convolutions and linear layers for one picture.

    Nothing is computed: tensors without memory pass the shapes on. Batch norm, activations and pooling are
    not counted, as usual.

    Args:
        network: a detector, or any module that takes a tensor (1, 3, height, width).
        height: of the picture, px.
        width: of the picture, px.
    """
    shadow = copy.deepcopy(network).eval()
    counts: list[int] = []

    def count(products: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(output.numel() * products)

    for module in shadow.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            # Each output value sums one product per weight of its filter.
            module.register_forward_hook(partial(count, module.weight[0].numel()))
    run = getattr(shadow, "network", shadow)
    device = next(shadow.parameters(), torch.empty(0)).device
    # Not the meta device: it knows no autocast, which the heads of dense detectors leave.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        run(torch.zeros((1, 3, height, width), device=device))
    return sum(counts)
