"""Class tables: names are the key, numbers are derived, and the order is the same on every machine."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from boxmatch.data.text_files import read_text
from boxmatch.errors import DataError

VOC_CLASSES = (  # Everingham et al. 2010, table 1, in alphabetical order
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def class_name(written: str) -> str:
    """A class name as it is written in a file, blanks at the ends left out and others made single.

    Raises:
        DataError: it is empty, or holds control characters or halves of characters, which harm terminals and
            files.
    """
    name = " ".join(written.split())
    if not name or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise DataError(f"expected a class name, got {written!r:.80}")
    return name


def voc_classes(root: Path, found: Iterable[str]) -> tuple[str, ...]:
    """Order of the classes of a VOC folder, whose files hold names only.

    `classes.txt` in the root, one name a line, leads; classes it lacks follow in alphabetical order. Without
    it the names found, in alphabetical order, which is the usual order of the 20 VOC classes. Where half of
    those 20 are found and no other name, the set is a part of VOC, and all 20 make up the table.
    """
    names = set(found)
    listed = class_list(root)
    if listed is None and names <= set(VOC_CLASSES) and 2 * len(names) >= len(VOC_CLASSES):
        return VOC_CLASSES
    listed = listed or ()
    return (*listed, *sorted(names - set(listed)))


def class_list(root: Path) -> tuple[str, ...] | None:
    """The names in `classes.txt` of the root, or None when there is no such file.

    Raises:
        DataError: a name appears twice, or holds control characters.
    """
    file = root / "classes.txt"
    if not file.is_file():
        return None
    lines = read_text(file).splitlines()
    try:
        names = tuple(class_name(line) for line in lines if line.strip())
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{file}: the classes {twice} appear twice; remove one")
    return names


def nearest_name(name: str, valid: Sequence[str]) -> str | None:
    """The valid class name most like a misspelt one, in any case of letters; None when none is near."""
    lowered = {candidate.lower(): candidate for candidate in reversed(valid)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else None


def similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case, blanks and signs, or by a missing letter of five or more."""
    whole: dict[str, str] = {}
    shortened: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for name in names:
        plain = "".join(letter for letter in name.casefold() if letter.isalnum()) or name
        shorter = [plain[:k] + plain[k + 1 :] for k in range(len(plain))] if len(plain) >= 5 else []
        near = [whole.get(plain), shortened.get(plain), *(whole.get(form) for form in shorter)]
        pairs.update({(other, name): None for other in near if other is not None})
        whole.setdefault(plain, name)
        for form in shorter:
            shortened.setdefault(form, name)
    return list(pairs)
