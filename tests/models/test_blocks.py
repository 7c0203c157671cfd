"""Convolution blocks."""

from typing import get_args

import pytest
import torch
from torch import nn

from boxmatch.models.blocks import Activation, conv_block, make_activation, separable_block


@pytest.mark.parametrize("name", get_args(Activation))
def test_every_activation_can_be_made_and_keeps_the_shape(name: str) -> None:
    assert make_activation(name)(torch.randn(2, 3, 4, 4)).shape == (2, 3, 4, 4)


def test_an_unknown_activation_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"relu, relu6, leakyrelu.*got 'swish'"):
        make_activation("swish")


def test_conv_block_is_convolution_norm_activation_without_bias() -> None:
    block = conv_block(3, 5, 3, stride=2, activation="silu")
    assert [type(m) for m in block] == [nn.Conv2d, nn.BatchNorm2d, nn.SiLU]
    assert block[0].bias is None
    assert block(torch.zeros(1, 3, 7, 10)).shape == (1, 5, 4, 5)


def test_separable_block_filters_each_channel_then_mixes_with_bias() -> None:
    depthwise, pointwise = separable_block(4, 6, 3)
    assert depthwise[0].groups == 4
    assert depthwise[0].bias is None
    assert pointwise[0].kernel_size == (1, 1)
    assert pointwise[0].bias is not None
