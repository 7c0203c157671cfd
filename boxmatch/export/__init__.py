"""Detectors as files that run without this package: ONNX and torch.export."""

from .write import export_onnx, export_torch

__all__ = ["export_onnx", "export_torch"]
