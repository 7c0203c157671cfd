"""Sampling at learned places where a network has diverged: an answer, and not the end of the process."""

import math

import pytest
import torch
from torchvision.ops import deform_conv2d

from boxmatch.models.box_refinement import refine_distances
from boxmatch.models.deformable import DeformableConv2d, convolve_at


def test_an_offset_that_is_no_number_gives_no_number_at_its_place_only():
    generator = torch.Generator().manual_seed(0)
    values, weight = torch.rand(1, 2, 4, 5, generator=generator), torch.rand(3, 2, 1, 1, generator=generator)
    offsets = torch.rand(1, 2, 4, 5, generator=generator)
    expected = deform_conv2d(values, offsets, weight)
    offsets[0, 1, 2, 3] = math.nan
    found = convolve_at(values, offsets, weight)
    assert found[:, :, 2, 3].isnan().all()
    kept = torch.ones(4, 5, dtype=torch.bool)
    kept[2, 3] = False
    assert torch.equal(found[..., kept], expected[..., kept])


@pytest.mark.parametrize("far", [1e30, -1e30, math.inf, -math.inf])
def test_an_offset_beyond_all_maps_reads_zero(far):
    values, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
    assert (convolve_at(values, torch.full((1, 2, 3, 3), far), weight) == 0).all()


@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize("lost", ["distances", "offsets"])
def test_box_refinement_passes_on_that_a_network_has_diverged(border, lost):
    given = {"distances": torch.ones(1, 4, 6, 6), "offsets": torch.zeros(1, 8, 6, 6)}
    given[lost][0, 2, 3, 3] = math.nan
    refined = refine_distances(given["distances"], given["offsets"], 8.0, border)
    assert refined[0, :, 3, 3].isnan().any() and not refined[0, :, 0, 0].isnan().any()


def test_a_deformable_layer_without_numbers_answers_and_learns_nothing_false():
    layer = DeformableConv2d(2, 3)
    with torch.no_grad():
        layer.offset.weight.fill_(math.nan)
    result = layer(torch.rand(1, 2, 5, 5))
    assert result.isnan().all()
    result.sum().backward()
    assert layer.offset.weight.grad is not None
