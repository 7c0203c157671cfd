"""Reading tensors from weight files without running any code they may carry."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Parts of what torch says when it meets a class or function instead of a tensor, as opposed to a broken file.
_SIGNS_OF_OBJECTS = ("GLOBAL", "unrecognized function", "allowlisted")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a `.safetensors` file or of a PyTorch file, on the CPU.

    A PyTorch file holds either the tensors themselves or a dictionary with them under `state_dict` or
    `model`; the prefix `module.` that data-parallel training leaves on every name is removed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds Python objects that could run code, or holds no named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weight file at {path}; give the path of a .safetensors, .pth, .pt or .ckpt file"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise ValueError(
            f"expected named tensors in {path}, or a dictionary with them under 'state_dict', "
            f"got {_outline(content)}"
        )
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); copy or save it again"
        ) from error


def _read_pytorch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_OBJECTS):
            raise ValueError(f"{path} is damaged or no PyTorch weight file; copy or save it again") from error
        raise ValueError(
            f"{path} holds Python objects besides tensors; reading them could run code, so they are refused. "
            "If you trust the file, keep its tensors only: "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], new_path)"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no PyTorch weight file ({error}); copy or save it again"
        ) from error


def _outline(content: Any) -> str:
    """What a file holds, in a few words."""
    if isinstance(content, dict):
        names = ", ".join(f"{name!r} ({type(value).__name__})" for name, value in list(content.items())[:6])
        return f"a dictionary with {names or 'nothing'}"
    return f"a {type(content).__name__}"
