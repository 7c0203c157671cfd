"""DW's box refinement against the original: sampling, refined distances, and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxmatch.models.box_refinement import reading_places, refine_distances
from boxmatch.models.deformable import convolve_at

CASES = ("case0_near", "case1_far", "case2_const")


@pytest.fixture(scope="module")
def arrays(golden_dir: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden_dir / "dw" / "r1_box_refine.npz"))


def of(arrays: dict[str, np.ndarray], case: str, name: str) -> Tensor:
    return torch.as_tensor(arrays[f"{case}_{name}"], dtype=torch.float32)


def close(ours: Tensor, expected: Tensor) -> None:
    """The README's tolerance."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6 * max(scale, 1e-12))


@pytest.mark.parametrize("case", CASES)
def test_refined_distances_and_gradients_equal_the_original(arrays, case):
    raw = of(arrays, case, "raw_reg").requires_grad_()
    offset = of(arrays, case, "reg_offset").requires_grad_()
    scale = of(arrays, case, "scale").requires_grad_()
    stride = float(arrays[f"{case}_stride"])
    distances = (raw * scale).relu() * stride
    refined = refine_distances(distances, offset, stride)
    close(refined.detach(), of(arrays, case, "refined_dist"))
    refined.backward(of(arrays, case, "grad_out"))
    for ours, name in ((raw, "grad_raw_reg"), (offset, "grad_reg_offset"), (scale, "grad_scale")):
        assert ours.grad is not None
        close(ours.grad, of(arrays, case, name))


@pytest.mark.parametrize("case", CASES)
def test_sides_are_read_where_the_original_reads_them(arrays, case):
    stride, offset = float(arrays[f"{case}_stride"]), of(arrays, case, "reg_offset")
    distances = (of(arrays, case, "raw_reg") * of(arrays, case, "scale")).relu() * stride
    places = reading_places(distances, offset, stride)
    close(places, of(arrays, case, "sample_offset"))
    read = convolve_at(of(arrays, case, "coarse_boxes"), places, torch.ones(4, 1, 1, 1))
    close(read, of(arrays, case, "sampled_boxes"))


def test_bare_sampling_is_the_operator_of_torchvision(arrays):
    features = torch.as_tensor(arrays["plain_feat"]).requires_grad_()
    offset = torch.as_tensor(arrays["plain_offset"]).requires_grad_()
    out = convolve_at(features, offset, torch.ones(4, 1, 1, 1))
    close(out.detach(), torch.as_tensor(arrays["plain_out"]))
    out.backward(torch.as_tensor(arrays["plain_grad_out"]))
    close(features.grad, torch.as_tensor(arrays["plain_grad_feat"]))
    close(offset.grad, torch.as_tensor(arrays["plain_grad_offset"]))


def test_the_original_loses_sides_at_the_border_and_clamping_keeps_them(arrays):
    case = "case2_const"
    stride = float(arrays[f"{case}_stride"])
    distances = (of(arrays, case, "raw_reg") * of(arrays, case, "scale")).relu() * stride
    offset = of(arrays, case, "reg_offset")
    assert (refine_distances(distances, offset, stride)[:, 2, :, -1] == 0).all()
    assert (refine_distances(distances, offset, stride, "clamp")[:, 2, :, -1] > 0).all()
