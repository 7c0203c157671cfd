"""ImageNet weights for dense backbones: torchvision's by name, or a local file."""

from collections.abc import Mapping
from pathlib import Path

import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from boxmatch.models.caffe2_weights import read_caffe2
from boxmatch.models.weights import read_weights

_COUNTER = "num_batches_tracked"


def imagenet_weights(name: str, wanted: bool | str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a classification network under torchvision's names, without the classifier.

    Args:
        name: of the network.
        wanted: True for torchvision's first weights, the name of others, or the path of a local file: of
            torchvision's names, or a Caffe2 pickle (.pkl).
        expected: names and shapes the network has.

    Raises:
        ValueError: there are no such weights, or they do not fit.
        FileNotFoundError: there is no such local file.
        ConnectionError: the download fails.
    """
    weights = _find(name, wanted)
    weights = {key: tensor for key, tensor in weights.items() if not key.startswith("fc.")}
    # Batch norm counts its batches, frozen norm does not: the counters carry no knowledge.
    needed = {
        key for key in expected if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    missing = sorted(needed - weights.keys())
    unknown = sorted(key for key in weights.keys() - needed if not key.endswith(_COUNTER))
    if missing or unknown:
        raise ValueError(
            f"the weights {wanted!r} are not those of {name}: {len(missing)} tensors missing "
            f"({', '.join(missing[:3])} …), {len(unknown)} unknown ({', '.join(unknown[:3])} …)"
        )
    for key in sorted(needed):
        if weights[key].shape != expected[key].shape:
            raise ValueError(
                f"the weights {wanted!r} are not those of {name}: expected {key} of shape "
                f"{tuple(expected[key].shape)}, got {tuple(weights[key].shape)}"
            )
    return {key: weights[key] for key in needed}


def _find(name: str, wanted: bool | str) -> dict[str, Tensor]:
    published = {}
    if name in torchvision.models.list_models(module=torchvision.models):
        published = {weights.name: weights for weights in torchvision.models.get_model_weights(name)}
    choice = "IMAGENET1K_V1" if wanted is True else str(wanted)
    if wanted is True and choice not in published and published:
        choice = next(iter(published))
    if choice in published and not Path(choice).exists():
        return download(published[choice])
    if Path(choice).is_file():
        return read_caffe2(choice) if choice.endswith(".pkl") else read_weights(choice)
    raise ValueError(
        f"pretrained={wanted!r} is neither a local file nor published weights of {name} "
        f"({', '.join(published) or 'there are none'})"
    )


def download(weights: WeightsEnum) -> dict[str, Tensor]:
    """Published weights, from the cache of torch if they are there.

    Raises:
        ConnectionError: the download fails.
    """
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except OSError as error:
        raise ConnectionError(
            f"could not download {weights} ({error}); without a network give pretrained the path of a local "
            "file, or False for random weights"
        ) from error
