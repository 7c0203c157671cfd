"""SPP and PAN."""

import torch
from torch.nn.functional import max_pool2d

from boxmatch.models.necks import PAN, SPP


def test_spp_puts_the_input_before_its_maxima_over_5_9_13() -> None:
    spp = SPP(8).eval()
    seen: list[torch.Tensor] = []
    spp.conv2.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    features = torch.randn(2, 8, 11, 17)
    spp(features)
    near = spp.conv1(features)
    expected = [near] + [max_pool2d(near, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(seen[0], torch.cat(expected, 1))


def test_spp_works_on_a_single_cell() -> None:
    assert SPP(8).eval()(torch.randn(1, 8, 1, 1)).shape == (1, 8, 1, 1)


def test_pan_keeps_shapes_also_where_sizes_do_not_halve() -> None:
    maps = [torch.randn(2, 8, 38, 63), torch.randn(2, 16, 19, 32), torch.randn(2, 32, 10, 16)]
    assert [m.shape for m in PAN(32).eval()(*maps)] == [m.shape for m in maps]


def test_every_output_of_the_pan_sees_every_input() -> None:
    torch.manual_seed(0)
    pan = PAN(32, activation="silu").eval()
    maps = [torch.randn(1, c, s, s, requires_grad=True) for c, s in ((8, 8), (16, 4), (32, 2))]
    for output in pan(*maps):
        gradients = torch.autograd.grad(output.sum(), maps, retain_graph=True)
        assert all(g.abs().max() > 0 for g in gradients)
