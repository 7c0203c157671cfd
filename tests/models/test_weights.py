"""Reading weight files."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from boxmatch.models.weights import read_weights

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


def assert_same(found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(TENSORS)
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "best_score": 0.7, "optimizer": None},
        {"state_dict": {f"module.{name}": tensor for name, tensor in TENSORS.items()}},
    ],
    ids=["bare", "checkpoint", "data parallel"],
)
def test_pytorch_files_are_read_in_all_their_forms(content: dict[str, object], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert_same(read_weights(tmp_path / "weights.pth"))


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert_same(read_weights(tmp_path / "weights.safetensors"))


class Dangerous:
    """Runs code when a careless reader opens it."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (eval, ("(_ for _ in ()).throw(RuntimeError('code was run'))",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_code_is_refused_and_nothing_runs(legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    content = {"state_dict": TENSORS, "trainer": Dangerous()}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="could run code, so they are refused"):
        read_weights(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 100, -20])
def test_a_cut_file_is_called_damaged(suffix: str, keep: int, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(TENSORS, file) if suffix == ".safetensors" else torch.save(TENSORS, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"weights\.\w+ is damaged"):
        read_weights(file)


def test_bytes_that_are_no_weights_are_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html><title>Not found</title>")
    with pytest.raises(ValueError, match="is damaged or no PyTorch weight file"):
        read_weights(tmp_path / "page.pth")


@pytest.mark.parametrize(
    "content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(2)], ids=str
)
def test_a_file_without_named_tensors_says_what_it_holds(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"expected named tensors in .* got a "):
        read_weights(tmp_path / "weights.pth")


def test_a_plain_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Dangerous(), protocol=2))
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read_weights(tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*absent\.pth"):
        read_weights(tmp_path / "absent.pth")
