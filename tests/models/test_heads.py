"""The anchor head."""

import pytest
import torch

from boxmatch.models.heads import AnchorHead


def test_output_is_batch_anchor_row_column_value() -> None:
    head = AnchorHead([4, 8], anchors=3, num_classes=2)
    maps = [torch.randn(2, 4, 5, 6), torch.randn(2, 8, 3, 3)]
    raw = head(maps)
    assert [tuple(r.shape) for r in raw] == [(2, 3, 5, 6, 7), (2, 3, 3, 3, 7)]
    # Channel a·(5 + C) + k of the convolution is value k of anchor a.
    assert torch.equal(raw[0][1, 2, 4, 5, 3], head.heads[0](maps[0])[1, 2 * 7 + 3, 4, 5])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_output_is_a_view_in_either_memory_layout(memory_format: torch.memory_format) -> None:
    head = AnchorHead([4], anchors=3, num_classes=2)
    head.heads[0].register_forward_hook(lambda *_: plain)
    plain = torch.randn(2, 21, 5, 6).contiguous(memory_format=memory_format)
    assert head([torch.zeros(2, 4, 5, 6)])[0].data_ptr() == plain.data_ptr()


def test_the_published_head_has_no_bias() -> None:
    assert AnchorHead([4], 3, 2).heads[0].bias is None


def test_bias_starts_at_the_prior_probability_for_objectness_and_at_zero_elsewhere() -> None:
    head = AnchorHead([4, 8], 3, 2, bias=True, prior_probability=0.01)
    for convolution in head.heads:
        bias = convolution.bias.view(3, 7)
        assert torch.sigmoid(bias[:, 0]).tolist() == pytest.approx([0.01] * 3)
        assert not bias[:, 1:].any()
    assert not AnchorHead([4], 3, 2, bias=True).heads[0].bias.any()


@pytest.mark.parametrize(("bias", "probability"), [(False, 0.01), (True, 0.0), (True, 1.0), (True, -0.1)])
def test_prior_probability_needs_a_bias_and_a_probability(bias: bool, probability: float) -> None:
    with pytest.raises(ValueError, match="prior_probability must lie in"):
        AnchorHead([4], 3, 2, bias=bias, prior_probability=probability)
