"""What holds for every assigner, whatever its rule: each with each property of the kit."""

import pytest
from every_assigner import EVERY_ASSIGNER

from boxmatch.conformance import PROPERTIES, NotApplicable, Subject

SUBJECTS = {name: Subject.of(factory) for name, factory in EVERY_ASSIGNER.items()}
"""One per assigner for the whole file: it finds out but once which priors the assigner takes."""


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("assigner", SUBJECTS)
def test_invariant(assigner: str, name: str) -> None:
    try:
        PROPERTIES[name](SUBJECTS[assigner])
    except NotApplicable as reason:
        pytest.skip(f"not applicable: {reason}")


@pytest.mark.parametrize("assigner", SUBJECTS)
def test_exceptions_are_properties_and_leave_most_of_them(assigner: str) -> None:
    exceptions = set(SUBJECTS[assigner].exceptions)
    assert exceptions <= set(PROPERTIES)
    assert len(exceptions) <= 3
