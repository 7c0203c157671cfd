"""What can be wrong with a data set, and what is done about each kind."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from boxmatch.errors import DataError

Refusal = Literal["error"]
ErrorOrDrop = Literal["error", "drop"]
ErrorOrKeep = Literal["error", "keep"]
AnyPolicy = Literal["error", "drop", "keep"]

KEPT_PER_KIND = 1000  # a data set with a million bad boxes needs no million sentences


@dataclass(frozen=True)
class CheckPolicy:
    """What to do about each kind of problem: refuse the data, leave the object or picture out, repair it, or
    only tell.

    Args:
        broken_file: an annotation file that cannot be read; drop leaves its picture out.
        broken_object: an object without name or box, a line with the wrong number of columns.
        non_finite: NaN or infinite coordinates. Always an error: they show a fault in the tool that wrote
            them.
        zero_size: a box without extent: 0 px in one direction, or at most 1 px in both.
        inverted: a box whose end lies before its beginning.
        outside: a box that leaves its picture by 1 px or more.
        unknown_class: a class name missing from the class list.
        class_id: a class or category id that the class table does not have.
        duplicate_id: two pictures with the same id or name; drop keeps the first.
        unknown_image: an annotation of a picture that the file does not list.
        missing_picture: a picture that is listed and does not exist.
        unreadable_picture: a picture whose header cannot be read.
        large_picture: a picture with more pixels than the limit.
        picture_size: the annotation and the file disagree about width and height.
        exif: the annotation has the size of the picture before its EXIF rotation, so its boxes would be
            turned.
        unsafe_path: a file name that leaves the data root. Always an error.
        missing_labels: a picture without a label file (YOLO); it counts as a picture without objects.
        duplicate_box: two equal boxes of one class in one picture.
        shared_picture: a picture in two splits.
        similar_class: two class names that differ by a slip of the pen.
        untrained_class: a class that has objects in another split and none in the first.
        duplicate_object_id: two annotations with the same id.
    """

    broken_file: ErrorOrDrop = "error"
    broken_object: ErrorOrDrop = "error"
    non_finite: Refusal = "error"
    zero_size: ErrorOrDrop = "drop"
    inverted: ErrorOrDrop = "error"
    outside: Literal["error", "drop", "clip"] = "clip"
    unknown_class: ErrorOrDrop = "error"
    class_id: ErrorOrDrop = "error"
    duplicate_id: ErrorOrDrop = "error"
    unknown_image: ErrorOrDrop = "error"
    missing_picture: ErrorOrDrop = "error"
    unreadable_picture: ErrorOrDrop = "error"
    large_picture: ErrorOrDrop = "error"
    picture_size: AnyPolicy = "error"
    exif: AnyPolicy = "error"
    unsafe_path: Refusal = "error"
    missing_labels: ErrorOrKeep = "keep"
    duplicate_box: AnyPolicy = "keep"
    shared_picture: ErrorOrKeep = "keep"
    similar_class: ErrorOrKeep = "keep"
    untrained_class: ErrorOrKeep = "keep"
    duplicate_object_id: ErrorOrKeep = "keep"

    def __post_init__(self) -> None:
        for option in fields(self):
            allowed = get_args(option.type)
            if getattr(self, option.name) not in allowed:
                raise ValueError(
                    f"expected the action for {option.name} to be one of {allowed}, "
                    f"got {getattr(self, option.name)!r}"
                )

    def action(self, kind: str) -> str:
        """What happens to a problem of this kind."""
        return str(getattr(self, kind))


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        kind: a field of `CheckPolicy`.
        file: picture or annotation file, relative to the data root.
        message: what is wrong and what to do.
        split: name of the split, empty when it concerns all.
        object: "object 3", "line 7", "annotation 12"; empty when it concerns the file.
        box: xyxy in pixels as read, where there is one.
        action: what was done: "error", "drop", "clip" or "keep".
    """

    kind: str
    file: str
    message: str
    split: str = ""
    object: str = ""
    box: tuple[float, ...] | None = None
    action: str = ""

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.object) if part)
        box = "" if self.box is None else f" [box {', '.join(f'{value:g}' for value in self.box)}]"
        return f"{place}: {self.message}{box}" if place else f"{self.message}{box}"


@dataclass
class ProblemLog:
    """Collects problems; counts all and keeps the first thousand of each kind and split.

    Args:
        split: name of the split that is being read or checked.
        problems: those kept.
        counts: how many, by kind, split and action. The action is empty where the policy decides.
    """

    split: str = ""
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(
        self,
        kind: str,
        file: str,
        message: str,
        *,
        object: str = "",
        box: Iterable[float] | None = None,
        action: str = "",
    ) -> None:
        """Note one problem of the current split."""
        self.count(kind, 1, action)
        if self.counts[kind, self.split, action] <= KEPT_PER_KIND:
            values = None if box is None else tuple(box)
            self.problems.append(Problem(kind, file, message, self.split, object, values, action))

    def count(self, kind: str, number: int, action: str = "") -> None:
        """Count problems of the current split without keeping them."""
        if number:
            self.counts[kind, self.split, action] += number

    def action(self, kind: str, action: str, policy: CheckPolicy) -> str:
        """What the policy says, unless it forbids nothing and the problem itself asks for something."""
        decided = policy.action(kind)
        return action or decided if decided != "error" else decided

    def refuse(self) -> None:
        """Raise a DataError with all problems that are errors by default, if there are any."""
        policy = CheckPolicy()
        errors = [str(problem) for problem in self.problems if policy.action(problem.kind) == "error"]
        if errors:
            raise DataError(errors)
