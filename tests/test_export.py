"""Exported detectors give the numbers of the detector, at other numbers and sizes of pictures too."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from boxmatch.export import export_onnx, export_torch
from boxmatch.models import dense_presets
from boxmatch.models.detector import Detector
from boxmatch.models.yolo import YOLO
from boxmatch.postprocess import PostProcess

Run = Callable[[Tensor], Sequence[Tensor]]

SHAPES = ((2, 3, 160, 192), (1, 3, 256, 160), (3, 3, 192, 224))
"""Batches that the dynamic files are tried on; traced at another."""


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Shape checks compare lengths, and an open length that was compared is open no more."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def yolo(method: str = "nearby_grid") -> YOLO:
    torch.manual_seed(0)
    return YOLO(["a", "b"], channel_sparsity=0.25, method=method)


def dense(name: str, **options: object) -> Detector:
    """A preset with a small backbone and scores that spread over the whole range."""
    torch.manual_seed(0)
    detector = getattr(dense_presets, name)(["a", "b"], **{"backbone": "resnet18", **options})
    for layer in (detector.head.class_logits, detector.head.boxes):
        nn.init.normal_(layer.weight, std=0.03)
    nn.init.constant_(detector.head.class_logits.bias, -1.0)
    return detector


def torch_file(detector: Detector, folder: Path, **options: bool) -> Run:
    export_torch(detector, folder / "a.pt2", size=(160, 160), **options)
    return torch.export.load(folder / "a.pt2").module()


def onnx_file(detector: Detector, folder: Path, **options: bool) -> Run:
    runtime = pytest.importorskip("onnxruntime")
    export_onnx(detector, folder / "a.onnx", size=(160, 160), **options)
    session = runtime.InferenceSession(folder / "a.onnx", providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()})]


def pictures(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape))
    )


def assert_detections(run: Run, detector: Detector, shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
    """The same detections, picture by picture, best first."""
    for shape in shapes:
        images = pictures(shape)
        boxes, scores, labels, image = run(images)
        expected = detector.predict(images)
        assert sum(map(len, expected)) > 0
        for number, one in enumerate(expected):
            own = image == number
            # Best first, so that the lists agree place by place but where scores agree to rounding.
            assert_close(scores[own], one.scores, atol=1e-5, rtol=0)
            same = (scores[own][:, None] - one.scores).abs() <= 1e-5
            same &= labels[own][:, None] == one.labels
            same &= (boxes[own][:, None] - one.boxes).abs().amax(2) <= 1e-2
            assert torch.equal(same.sum(0), torch.ones(len(one), dtype=torch.int64))
            assert torch.equal(same.sum(1), torch.ones(len(one), dtype=torch.int64))


@torch.no_grad()
def assert_rows(
    run: Run, detector: Detector, shapes: Sequence[tuple[int, ...]] = SHAPES, *, atol: float = 1e-5
) -> None:
    """The same boxes and scores for every place."""
    detector.eval()
    for shape in shapes:
        images = pictures(shape)
        boxes, scores = run(images)
        predictions = detector(images)
        assert_close(boxes, predictions.boxes, atol=1e-2, rtol=0)
        expected = predictions.logits.sigmoid()
        if predictions.quality is not None:
            expected = expected * predictions.quality.sigmoid()[..., None]
            expected = expected.sqrt() if getattr(detector.postprocess, "fusion", "") == "sqrt" else expected
        assert_close(scores, expected, atol=atol, rtol=0)


def test_the_simple_yolo_with_suppression_as_a_program_of_torch(tmp_path: Path):
    detector = yolo()
    assert_detections(torch_file(detector, tmp_path, nms=True), detector, [(1, 3, 160, 160)])


def test_the_simple_yolo_of_one_size_in_onnx_with_class_names(tmp_path: Path):
    detector = yolo()
    assert_rows(onnx_file(detector, tmp_path), detector, [(1, 3, 160, 160)])
    onnx = pytest.importorskip("onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert metadata["class_names"] == '["a", "b"]'


@pytest.mark.slow
@pytest.mark.parametrize("method", ["single_grid", "nearby_grid", "all_grid"])
@pytest.mark.parametrize("nms", [False, True])
@pytest.mark.parametrize("kind", [torch_file, onnx_file])
def test_every_simple_yolo_of_any_size(method: str, nms: bool, kind: Callable, tmp_path: Path):
    detector = yolo(method)
    check = assert_detections if nms else assert_rows
    check(kind(detector, tmp_path, nms=nms, dynamic=True), detector)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["atss", "dynamic_atss", "paa", "dual_weight", "fcos", "retinanet"])
@pytest.mark.parametrize("nms", [False, True])
@pytest.mark.parametrize("kind", [torch_file, onnx_file])
def test_every_dense_detector_of_any_size(name: str, nms: bool, kind: Callable, tmp_path: Path):
    detector = dense(name)
    check = assert_detections if nms else assert_rows
    check(kind(detector, tmp_path, nms=nms, dynamic=True), detector)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch_file, onnx_file])
def test_deformable_convolutions(kind: Callable, tmp_path: Path):
    detector = dense("atss", backbone="resnet50", deformable=True)
    # Learned places turn rounding into other places: 1.8e-5 were seen.
    assert_rows(kind(detector, tmp_path, dynamic=True), detector, SHAPES[:2], atol=1e-4)


def test_bad_sizes_and_an_own_post_processing_are_refused(tmp_path: Path):
    class Own(PostProcess):
        pass

    detector = yolo()
    with pytest.raises(ValueError, match="multiples of 32"):
        export_torch(detector, tmp_path / "a.pt2", size=(100, 64))
    detector.postprocess = Own()
    with pytest.raises(ValueError, match="export without NMS"):
        export_torch(detector, tmp_path / "a.pt2", size=(64, 64), nms=True)


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript.*boxmatch\[export\]"):
        export_onnx(yolo(), tmp_path / "a.onnx")
