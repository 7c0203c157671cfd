"""Label assignment for object detectors: which box teaches which part of the network."""

__version__ = "0.1.0"
