"""Write a detector as an ONNX file or as a program of torch.export."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from boxmatch.export.network import ExportedDetector
from boxmatch.export.suppression import onnx_translations
from boxmatch.models.detector import Detector

OPSET = 19  # the first with DeformConv

OUTPUTS = {False: ("boxes", "scores"), True: ("boxes", "scores", "labels", "image")}
"""Names of the outputs, without and with NMS."""


def export_torch(
    detector: Detector,
    file: Path | str,
    *,
    nms: bool = False,
    size: tuple[int, int] = (640, 640),
    dynamic: bool = False,
) -> None:
    """Write a detector as a program that `torch.export.load` reads.

    Input and outputs are those of `ExportedDetector`. With `nms`, `boxmatch.export` has to be imported before
    the file is loaded: it holds an operator of this package.

    Args:
        detector: with its weights.
        file: conventionally `NAME.pt2`.
        nms: the graph ends with detections instead of boxes and scores of all priors.
        size: (height, width) of the pictures; multiples of 32.
        dynamic: leave the number of pictures, and their size, open; else it is one picture of `size`.

    Raises:
        ValueError: `size` is no multiple of 32.
    """
    program = _program(detector, nms, size, dynamic)
    extra = {f"{name}.json": json.dumps(value) for name, value in _description(detector, nms).items()}
    torch.export.save(program, Path(file), extra_files=extra)


def export_onnx(
    detector: Detector,
    file: Path | str,
    *,
    nms: bool = False,
    size: tuple[int, int] = (640, 640),
    dynamic: bool = False,
) -> None:
    """Write a detector as ONNX, opset 19; class names are in its metadata.

    Args:
        detector: with its weights.
        file: conventionally `NAME.onnx`.
        nms: as for `export_torch`; suppression is ONNX's NonMaxSuppression.
        size: as for `export_torch`.
        dynamic: as for `export_torch`.

    Raises:
        ValueError: `size` is no multiple of 32.
        ModuleNotFoundError: the packages that write ONNX are not installed.
    """
    _check_packages()
    program = _program(detector, nms, size, dynamic)
    written = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=list(OUTPUTS[nms]),
        opset_version=OPSET,
        dynamo=True,
        custom_translation_table=onnx_translations(),
        verbose=False,
    )
    assert written is not None
    for name, value in _description(detector, nms).items():
        written.model.metadata_props[name] = json.dumps(value)
    written.save(str(file))


def _program(detector: Detector, nms: bool, size: tuple[int, int], dynamic: bool) -> ExportedProgram:
    height, width = size
    if min(size) < 32 or height % 32 or width % 32:
        raise ValueError(f"size: expected height and width as multiples of 32, got {height} and {width}")
    training = detector.training
    network = ExportedDetector(detector, nms=nms)
    count, shapes = 1, None
    if dynamic:
        # torch takes a length of 1 for one that never changes: two pictures, and two cells on every map.
        count, least = 2, 2 * max(detector.grid.strides)
        height, width = max(height, least), max(width, least)
        shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8, device=detector.mean.device)
    try:
        with torch.no_grad():
            return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
    finally:
        detector.train(training)


def _description(detector: Detector, nms: bool) -> Mapping[str, Any]:
    return {"class_names": list(detector.class_names), "outputs": list(OUTPUTS[nms])}


def _check_packages() -> None:
    for name in ("onnx", "onnxscript"):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"ONNX files need the package {error.name}: pip install 'boxmatch[export]'", name=error.name
            ) from error
