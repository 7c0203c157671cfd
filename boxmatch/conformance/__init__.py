"""What holds for every assigner, whatever its rule, as properties that anybody's can be tried on."""

from .kit import NotApplicable, Property, Subject
from .properties import PROPERTIES, Verdict, check

__all__ = ["PROPERTIES", "NotApplicable", "Property", "Subject", "Verdict", "check"]
