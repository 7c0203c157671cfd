"""Which maps a network of `timm` gives, found out without its weights."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)

_ANY_SIZE: Mapping[str, Any] = {"dynamic_img_size": True}

# A size that no network is made for.
_HEIGHT, _WIDTH = 192, 160


class Survey(NamedTuple):
    """What is known of a network before it is built.

    Args:
        options: for `timm.create_model`: the three maps, and any size of picture where there is a choice.
        channels: of the maps of strides 8, 16 and 32.
        channels_last: whether the maps come as (B, H, W, C).
        made_of: names of the parameters that the map of each stride is made of; all strides the network has.
    """

    options: Mapping[str, Any]
    channels: tuple[int, int, int]
    channels_last: bool
    made_of: Mapping[int, frozenset[str]]


def import_timm() -> ModuleType:
    """The package `timm`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"backbones called timm/… need the package {error.name}: pip install 'boxmatch[timm]'",
            name=error.name,
        ) from error
    return timm


def survey(name: str) -> Survey:
    """Build a network on the meta device and pass a picture of an odd size through it.

    Args:
        name: as `timm` has it, with or without the tag of its weights.

    Raises:
        ModuleNotFoundError: `timm` is not installed.
        ValueError: there is no such network; or it has no maps of strides 8, 16 and 32, or not for pictures
            of every size.
    """
    # Also for a detector that is loaded where no gradients are wanted.
    with torch.inference_mode(False), torch.enable_grad():
        return _look(name, *_on_meta(name))


def _look(name: str, network: Any, options: Mapping[str, Any]) -> Survey:
    strides = network.feature_info.reduction()
    # Of several maps of one stride the last has seen most.
    place = {stride: position for position, stride in enumerate(strides)}
    if not place.keys() >= set(STRIDES):
        raise ValueError(
            f"expected a network with maps of strides 8, 16 and 32, but timm/{name} gives strides "
            f"{', '.join(map(str, strides))}; take another, e.g. timm/convnext_tiny"
        )
    maps = _maps(name, network)
    channels_last = "NHWC" in str(getattr(network, "output_fmt", "NCHW"))
    sizes = [tuple(maps[place[stride]].shape[1 : 3 if channels_last else 4][-2:]) for stride in STRIDES]
    if sizes != [(_HEIGHT // stride, _WIDTH // stride) for stride in STRIDES]:
        raise ValueError(
            f"expected maps of {_HEIGHT} × {_WIDTH} pixels divided by 8, 16 and 32, but timm/{name} gives "
            f"{sizes}; take another, e.g. timm/convnext_tiny"
        )
    indices, channels = network.feature_info.out_indices, network.feature_info.channels()
    c3, c4, c5 = (channels[place[stride]] for stride in STRIDES)
    return Survey(
        {**options, "out_indices": tuple(indices[place[stride]] for stride in STRIDES)},
        (c3, c4, c5),
        channels_last,
        {stride: _made_of(network, maps[position]) for stride, position in place.items()},
    )


def _on_meta(name: str) -> tuple[Any, Mapping[str, Any]]:
    """The network without memory, and the options that it takes."""
    timm = import_timm()
    if not timm.is_model(name):
        near = [f"timm/{word}" for word in get_close_matches(name, timm.list_models(), n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; {hint}")
    try:
        with torch.device("meta"):
            if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
                # Made for one size: some can be told to take others, the rest do not know the word.
                with suppress(TypeError):
                    return timm.create_model(name, features_only=True, **_ANY_SIZE).eval(), _ANY_SIZE
            return timm.create_model(name, features_only=True).eval(), {}
    except Exception as error:  # networks of many authors: no saying which
        raise ValueError(f"timm cannot build the maps of timm/{name}: {error}") from error


def _maps(name: str, network: nn.Module) -> Sequence[Tensor]:
    try:
        maps: Sequence[Tensor] = network(torch.zeros(1, 3, _HEIGHT, _WIDTH, device="meta"))
    except Exception as error:  # networks of many authors: no saying which
        raise ValueError(
            f"expected a network for pictures of every size, but timm/{name} refuses {_HEIGHT} × {_WIDTH} "
            f"({type(error).__name__}: {error}); take another, e.g. timm/convnext_tiny"
        ) from error
    return maps


def _made_of(network: nn.Module, features: Tensor) -> frozenset[str]:
    names, parameters = zip(*network.named_parameters())
    slopes = torch.autograd.grad(features.sum(), parameters, retain_graph=True, allow_unused=True)
    return frozenset(name for name, slope in zip(names, slopes) if slope is not None)
