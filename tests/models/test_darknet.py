"""Darknet of any width."""

import pytest
import torch
from torch import nn

from boxmatch.models.darknet import Darknet, Residual, darknet_channels


def test_maps_have_strides_8_16_32_and_round_up() -> None:
    network = Darknet(channel_sparsity=1 / 32).eval()
    shapes = [tuple(m.shape) for m in network(torch.zeros(1, 3, 60, 100))]
    assert shapes == [(1, 8, 8, 13), (1, 16, 4, 7), (1, 32, 2, 4)]


@pytest.mark.parametrize("q", [1 / 32, 0.25, 0.375, 0.5, 1.0])
def test_whole_multiples_of_a_32nd_are_allowed(q: float) -> None:
    assert darknet_channels(q) == (256 * q, 512 * q, 1024 * q)


@pytest.mark.parametrize("q", [0.3, 0.6, 0.7, 0.9, 10 / 128, 0.0, -1.0, 1.5, 2.0])
def test_other_widths_are_refused_with_examples(q: float) -> None:
    with pytest.raises(ValueError, match=r"multiple of 1/32, e\.g\. 0\.25"):
        darknet_channels(q)


def test_a_residual_block_has_no_activation_after_the_sum() -> None:
    block = Residual(4).eval()
    with torch.no_grad():
        for convolution in (m for m in block.modules() if isinstance(m, nn.Conv2d)):
            convolution.weight.zero_()
    features = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(features), features)
