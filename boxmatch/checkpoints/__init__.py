"""Detectors on disk: our own files, and the weights of the original projects."""

from boxmatch.checkpoints.convert import convert
from boxmatch.checkpoints.convert_dense import convert_dense
from boxmatch.checkpoints.saved import load_detector, save_detector

__all__ = ["convert", "convert_dense", "load_detector", "save_detector"]
