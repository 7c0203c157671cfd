"""Networks of `timm` with random, published or local weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from boxmatch.models.timm_survey import import_timm
from boxmatch.models.weights import read_weights


def build_timm(name: str, pretrained: bool | str, **options: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """A network of `timm` that gives maps instead of classes.

    Args:
        name: as `timm` has it, with or without the tag of its weights.
        pretrained: False for random weights, True for the published ones, or the path of a local file of the
            whole network under timm's names.
        options: for `timm.create_model`.

    Returns:
        The network, and what timm says about its weights (`mean`, `std`).

    Raises:
        ValueError: there are no published weights, or those of the file do not fit.
        FileNotFoundError: there is no such local file.
        ConnectionError: the download fails.
    """
    timm = import_timm()
    options = {"features_only": True, **options}
    if isinstance(pretrained, str):
        options["pretrained_cfg_overlay"] = {"state_dict": _read(name, pretrained)}
    try:
        network = timm.create_model(name, pretrained=bool(pretrained), **options)
    except OSError as error:
        raise ConnectionError(
            f"could not download the weights of timm/{name} ({error}); without a network give pretrained the "
            "path of a local file, or False for random weights"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"timm cannot load weights into timm/{name}: {error}") from error
    about = dict(network.pretrained_cfg)
    # timm keeps a copy of the tensors it was given, under two names.
    network.pretrained_cfg = network.default_cfg = {}
    return network, about


def _read(name: str, path: str) -> dict[str, Tensor]:
    """Tensors of a local file, complete: `timm` itself would pass over what is missing or unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: they are not those of the network.
    """
    weights = read_weights(path)
    with torch.device("meta"):
        whole = import_timm().create_model(name)
    classifier = whole.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else classifier
    beside = tuple(f"{layer}." for layer in layers)
    expected = _shapes(whole.state_dict(), beside)
    found = _shapes(weights, beside)
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if different:
        first = different[0]
        raise ValueError(
            f"{path} does not hold the weights of timm/{name}: {len(different)} tensors are missing, unknown "
            f"or of another shape; the first is {first}, expected {expected.get(first, 'none')}, got "
            f"{found.get(first, 'none')}"
        )
    return weights


def _shapes(weights: Mapping[str, Tensor], beside: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without the classifier and the counters of batch norm, which carry no knowledge."""
    return {
        key: tuple(tensor.shape)
        for key, tensor in weights.items()
        if not key.startswith(beside) and not key.endswith("num_batches_tracked")
    }
