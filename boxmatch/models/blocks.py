"""The convolution blocks that every network of this package is made of."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import nn

Activation = Literal[
    "relu",
    "relu6",
    "leakyrelu",
    "prelu",
    "celu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "hardswish",
    "hardtanh",
    "sigmoid",
    "tanh",
    "none",
]

# Working in place saves one feature map per block; the batch norm before does not need its output again.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leakyrelu": lambda: nn.LeakyReLU(0.1, inplace=True),  # slope of YOLOv2 and v3, not PyTorch's 0.01
    "prelu": nn.PReLU,
    "celu": lambda: nn.CELU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "selu": lambda: nn.SELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """A new activation module.

    Raises:
        ValueError: the name is not one of `Activation`.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"expected an activation among {', '.join(get_args(Activation))}, got {name!r}")
    return _ACTIVATIONS[name]()


def conv_block(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, activation: Activation = "relu"
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation (CBA in the reference); stride 1 keeps the size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        make_activation(activation),
    )


def separable_block(
    in_channels: int, out_channels: int, kernel: int, *, activation: Activation = "relu"
) -> nn.Sequential:
    """Depthwise, then pointwise convolution, each with batch norm and activation (DSC in the reference).

    The pointwise convolution has a bias although batch norm follows: the published weights hold it.
    """
    depthwise = nn.Sequential(
        nn.Conv2d(
            in_channels, in_channels, kernel, padding=(kernel - 1) // 2, groups=in_channels, bias=False
        ),
        nn.BatchNorm2d(in_channels),
        make_activation(activation),
    )
    pointwise = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=True),
        nn.BatchNorm2d(out_channels),
        make_activation(activation),
    )
    return nn.Sequential(depthwise, pointwise)
