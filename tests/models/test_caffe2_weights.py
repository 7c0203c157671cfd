"""Caffe2 pickles: the names and values of a network, and what a file may not do."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxmatch.models.caffe2_weights import read_caffe2
from boxmatch.models.dense_backbone import DenseBackbone

PARTS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
PARTS |= {"bn1": "branch2a_bn", "bn2": "branch2b_bn", "bn3": "branch2c_bn"}
PARTS |= {"downsample.0": "branch1", "downsample.1": "branch1_bn"}


def blobs_of(network: DenseBackbone) -> dict[str, np.ndarray]:
    """The arrays of a network under the names of Caffe2, besides what its files hold more."""
    blobs = {"fc1000_w": np.zeros((2, 3), "f"), "fc1000_b": np.zeros(2, "f"), "conv1_b": np.zeros(64, "f")}
    for name, value in network.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            continue
        if owner == "conv1":
            found = "conv1_w"
        elif owner == "bn1":
            found = f"res_conv1_bn_{'s' if kind == 'weight' else 'b'}"
        else:
            layer, block, part = owner.split(".", 2)
            ending = "w" if "bn" not in PARTS[part] else "s" if kind == "weight" else "b"
            found = f"res{int(layer[-1]) + 1}_{block}_{PARTS[part]}_{ending}"
        blobs[found] = value.numpy()
    return blobs


@pytest.fixture(scope="module")
def network() -> DenseBackbone:
    """A ResNet-50 whose norms do something."""
    torch.manual_seed(0)
    made = DenseBackbone("resnet50", norm_eps=0.0, stride_in_1x1=True).eval()
    for name, value in made.state_dict().items():
        if name.endswith("bias") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.2, 0.6)
    return made


def saved(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("under", ["blobs", None])
def test_a_network_with_the_weights_of_a_pickle_is_the_network_they_came_from(network, tmp_path, under):
    blobs = blobs_of(network)
    file = saved(tmp_path / "R-50.pkl", {under: blobs, "weight_order": ["conv1_w"]} if under else blobs)
    loaded = DenseBackbone("resnet50", pretrained=str(file), norm_eps=0.0, stride_in_1x1=True).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        pairs: list[tuple[Tensor, Tensor]] = list(zip(loaded(images), network(images), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    assert pairs[0][0].std() > 0


def test_files_that_python_2_wrote_are_read(tmp_path):
    # cPickle.dumps({'blobs': {'conv1_w': numpy.array([1.5], 'f')}}, 2) of Python 2.7: strings are bytes.
    written = (
        b"\x80\x02}q\x01U\x05blobsq\x02}q\x03U\x07conv1_wq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
        b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01\x85cnumpy\ndtype\nq\x08U\x02f4K\x00K\x01"
        b"\x87Rq\t(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\x00\xc0?tbss."
    )
    (tmp_path / "old.pkl").write_bytes(written)
    assert read_caffe2(tmp_path / "old.pkl")["conv1.weight"].tolist() == [1.5]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_files_of_every_protocol_are_read(tmp_path, protocol):
    file = saved(tmp_path / "new.pkl", {"conv1_w": np.ones(3, "f"), "lr": np.float32(0.1)}, protocol)
    assert read_caffe2(file)["conv1.weight"].tolist() == [1, 1, 1]


class Malicious:
    """Runs a command where it is unpickled by the usual means."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    file = saved(tmp_path / "bad.pkl", {"blobs": {"conv1_w": Malicious(trace)}})
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system"):
        read_caffe2(file)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists()  # the file is what it says


@pytest.mark.parametrize(
    "name", ["builtins eval", "builtins getattr", "numpy load", "numpy.core.multiarray dot"]
)
def test_no_function_but_those_that_build_arrays_is_found(tmp_path, name):
    module, function = name.split()
    (tmp_path / "bad.pkl").write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(ValueError, match=f"asks for {module}.{function}"):
        read_caffe2(tmp_path / "bad.pkl")


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "expected named arrays"),
        ({"blobs": {3: np.zeros(1)}}, "expected named arrays"),
        ({"conv9_w": np.zeros(1, "f")}, "no ResNet"),
        ({"res2_0_branch2a_bn_rm": np.zeros(1, "f")}, "no ResNet"),
        ({"conv1_w": np.array(["a"], object)}, "array of floats"),
        ({"conv1_w": 3.0}, "array of floats"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_caffe2(saved(tmp_path / "other.pkl", content))


def test_a_missing_a_cut_and_an_incomplete_file_are_named(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        read_caffe2(tmp_path / "none.pkl")
    blobs = blobs_of(network)
    file = saved(tmp_path / "cut.pkl", blobs)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.pkl"):
        read_caffe2(file)
    del blobs["res4_5_branch2c_bn_s"]
    file = saved(tmp_path / "short.pkl", blobs)
    with pytest.raises(ValueError, match=r"1 tensors missing \(layer3\.5\.bn3\.weight"):
        DenseBackbone("resnet50", pretrained=str(file))
