"""ResNets of any width."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from boxmatch.models.backbones import ResNet, resnet_channels


def test_maps_have_strides_8_16_32_and_round_up() -> None:
    network = ResNet("resnet18", channel_sparsity=0.25).eval()
    shapes = [tuple(m.shape) for m in network(torch.zeros(1, 3, 60, 100))]
    assert shapes == [(1, 32, 8, 13), (1, 64, 4, 7), (1, 128, 2, 4)]


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("resnet18", [0.25, 0.5, 0.75, 0.9, 10 / 128, 1.0], [0.3, 0.6, 0.7]),
        ("resnet50", [0.25, 0.5, 0.75, 10 / 128, 1.0], [0.3, 0.7, 0.9]),
    ],
)
def test_widths_that_the_neck_can_halve_twice_are_allowed(
    name: str, allowed: list[float], refused: list[float]
) -> None:
    for q in allowed:
        c3, c4, c5 = resnet_channels(name, q)
        assert c5 == 2 * c4 == 4 * c3
    for q in refused:
        with pytest.raises(ValueError, match=r"take q in \(0, 1\] as a multiple of 1/32"):
            resnet_channels(name, q)


@pytest.mark.parametrize("q", [0.0, -0.5, 1.25, 2.0, 1 / 128])
def test_widths_outside_0_to_1_or_without_a_stem_are_refused(q: float) -> None:
    with pytest.raises(ValueError, match="multiple of 1/32"):
        resnet_channels("resnet18", q)


def test_unknown_depth_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="resnet18, resnet34, resnet50, resnet101"):
        resnet_channels("resnet19", 1.0)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Random tensors in the layout of torchvision's weight file, batch statistics included."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    return {n: torch.rand_like(t) if t.is_floating_point() else t for n, t in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pretrained_weights_are_the_leading_slices(
    published: dict[str, torch.Tensor], tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"resnet18{suffix}"
    save_file(published, file) if suffix == ".safetensors" else torch.save(published, file)
    state = ResNet("resnet18", channel_sparsity=0.5, pretrained=str(file)).state_dict()
    assert set(published) - set(state) == {"fc.weight", "fc.bias"}
    for name, tensor in state.items():
        assert torch.equal(tensor, published[name][tuple(slice(n) for n in tensor.shape)]), name
    assert state["conv1.weight"].shape == (32, 3, 7, 7)
    assert state["layer2.0.downsample.0.weight"].shape == (64, 32, 1, 1)


def test_weights_of_another_depth_are_refused(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match="not those of a full-width resnet34"):
        ResNet("resnet34", pretrained=str(tmp_path / "resnet18.pth"))


def test_a_pretrained_name_that_is_neither_file_nor_known_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"neither a local file nor .*IMAGENET1K_V1"):
        ResNet("resnet18", pretrained="imagenet.pth")


def test_a_failed_download_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ConnectionError, match="path of a local file"):
        ResNet("resnet18", pretrained=True)


def test_pretrained_weights_with_another_activation_are_refused() -> None:
    with pytest.raises(ValueError, match="expect activation='relu'"):
        ResNet("resnet18", pretrained="weights.pth", activation="silu")


def test_activation_replaces_every_relu() -> None:
    kinds = [type(m) for m in ResNet("resnet18", channel_sparsity=0.25, activation="silu").modules()]
    assert nn.ReLU not in kinds
    assert kinds.count(nn.SiLU) == 9  # the stem and eight blocks


def test_initial_scale_is_that_of_the_full_or_of_the_own_width() -> None:
    own = ResNet("resnet18", channel_sparsity=0.25, initialisation="own_width").layer4[1].conv2.weight
    full = ResNet("resnet18", channel_sparsity=0.25, initialisation="full_width").layer4[1].conv2.weight
    # He's rule on the outgoing side: variance 2 / (filters · 9), of 128 filters and of 512.
    assert own.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert full.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
