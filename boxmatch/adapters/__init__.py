"""Assigners in the models of other packages, one module per package."""
