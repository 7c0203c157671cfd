"""ImageNet weights of the Caffe2 era (MSRA ResNets, FAIR ResNeXts): pickles, read without running code."""

import importlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_CONVOLUTIONS = {"branch2a": "1", "branch2b": "2", "branch2c": "3"}
_BLOCK = re.compile(r"res([2-5])_(\d+)_(branch2[abc]|branch1)_(w|bn_s|bn_b)")
_STEM = {"conv1_w": "conv1.weight", "res_conv1_bn_s": "bn1.weight", "res_conv1_bn_b": "bn1.bias"}
# The classifiers; the bias of the stem's convolution, which maskrcnn-benchmark has no place for and Caffe2's
# own training left at zero; optimiser state and learning rate.
_LEFT_OUT = re.compile(r"(fc\d+|pred|last_out)_.*|conv1_b|lr|model_iter|.*_momentum")
_ARRAY_PARTS = ("_reconstruct", "scalar")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and built-in containers; every other class or function of a file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _ARRAY_PARTS:
            return getattr(importlib.import_module("numpy._core.multiarray"), name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("_codecs", "encode"):
            return _bytes  # how Python 3 writes bytes that Python 2 can read
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _bytes(text: str, encoding: str) -> bytes:
    """What `codecs.encode` does for the one encoding that pickles of bytes use."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def read_caffe2(path: str | Path) -> dict[str, Tensor]:
    """The weights of a Caffe2 classification network under torchvision's names, without the classifier.

    The scale and shift of each channel become weight and bias of a batch norm with mean 0 and variance 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, asks for anything but arrays, or has a name that is no ResNet's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    with path.open("rb") as file:
        content = _unpickle(file, path)
    blobs = content.get("blobs", content) if isinstance(content, Mapping) else content
    if not isinstance(blobs, Mapping) or not all(isinstance(name, str) for name in blobs):
        raise ValueError(f"expected named arrays in {path}, or under 'blobs', got a {type(blobs).__name__}")
    weights: dict[str, Tensor] = {}
    for name, array in blobs.items():
        if _LEFT_OUT.fullmatch(name):
            continue
        weights[_torchvision_name(name, path)] = _tensor(name, array, path)
    for name in [name for name in weights if name.endswith(".bias")]:
        norm, channels = name.removesuffix(".bias"), len(weights[name])
        weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"] = (
            torch.zeros(channels),
            torch.ones(channels),
        )
    return weights


def _unpickle(file: BinaryIO, path: Path) -> Any:
    try:
        # Python 2 wrote these files; its strings of bytes are Latin-1 for the arrays to come out right.
        return _ArrayUnpickler(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no pickle of arrays ({error}); only numpy arrays in dictionaries and lists are read, "
            "because anything else could run code"
        ) from error
    except (EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, MemoryError) as error:
        raise ValueError(f"{path} is damaged or no pickle ({error!r}); copy it again") from error


def _torchvision_name(name: str, path: Path) -> str:
    if name in _STEM:
        return _STEM[name]
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{path} holds {name!r}, which no ResNet or ResNeXt of Caffe2 has; expected names like "
            "res2_0_branch2a_w"
        )
    stage, block, branch, kind = match.groups()
    value = "bias" if kind == "bn_b" else "weight"
    prefix = f"layer{int(stage) - 1}.{block}"
    if branch == "branch1":
        return f"{prefix}.downsample.{0 if kind == 'w' else 1}.{value}"
    part = "conv" if kind == "w" else "bn"
    return f"{prefix}.{part}{_CONVOLUTIONS[branch]}.{value}"


def _tensor(name: str, array: Any, path: Path) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise ValueError(f"expected {name!r} in {path} to be an array of floats, got {type(array).__name__}")
    return torch.from_numpy(np.array(array, dtype=np.float32))
