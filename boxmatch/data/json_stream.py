"""Read a JSON object with long lists piece by piece, so that a file of gigabytes needs megabytes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from boxmatch.errors import DataError

CHUNK = 1 << 20  # characters read at once
LARGEST_VALUE = 1 << 28  # characters of one list element; a COCO annotation has some thousand
BATCH = 4096
# A value cut at the end of the buffer fails within its last token: the longest are "-Infinity" and a
# \uXXXX\uXXXX pair.
LAST_TOKEN = 16
SPACE = re.compile(r"[ \t\r\n]*")


def stream_lists(path: Path, unread: str | None = None) -> Iterator[tuple[str, int, list[Any], list[str]]]:
    """The lists of the outermost JSON object in batches; values that are no lists are read and left out.

    Args:
        unread: a key whose value, where it is a list of lists of numbers, is not decoded and comes out empty.
            Polygons make up four fifths of a COCO file, and three quarters of the time to decode it.

    Yields:
        Key of the list, position of the first element of the batch, up to 4096 elements (at least one batch
        per list, empty for an empty list), and the places ("annotations[7]") of elements that hold NaN or
        Infinity, which JSON does not have.

    Raises:
        DataError: the file cannot be read or is not such an object; the text says where.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _Reader(file, path, unread).lists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error


class _NotJsonError(Exception):
    """NaN or Infinity, which Python's decoder accepts unless told otherwise."""


def _refuse_constant(name: str) -> float:
    raise _NotJsonError(name)


def _emptied(found: re.Match[str]) -> str:
    """The key with an empty list of the same length, so that places in messages stay right."""
    key, _, value = found[0].partition(":")
    return f"{key}:[{' ' * (len(value) - 2)}]"


class _Reader:
    """A buffer that slides over the file."""

    def __init__(self, file: TextIO, path: Path, unread: str | None) -> None:
        self.file = file
        self.path = path
        self.buffer = ""
        self.position = 0  # in the buffer
        self.dropped = 0  # characters before the buffer
        self.ended = False
        self.unread = unread and re.compile(rf'"{unread}"\s*:\s*\[\s*(?:\[[0-9\s.,eE+\-]*\]\s*(?:,\s*)?)*\]')
        decoder = json.JSONDecoder(parse_constant=_refuse_constant)
        self.strict = decoder.raw_decode
        self.scan = decoder.scan_once  # type: ignore[attr-defined]  # documented by its use in json.JSONDecoder
        self.tolerant = json.JSONDecoder().raw_decode

    def lists(self) -> Iterator[tuple[str, int, list[Any], list[str]]]:
        if self.peek() != "{":
            raise self.error("expected a JSON object with lists of images, annotations and categories", "")
        self.position += 1
        seen: set[str] = set()
        while self.peek() != "}" or seen:
            key, _ = self.value("a key")
            if not isinstance(key, str):
                raise self.error(f"expected a key in quotes, got {key!r:.40}", "")
            if key in seen:
                raise self.error(f"the key {key!r} appears twice", key)
            seen.add(key)
            self.expect(":", key)
            if self.peek() == "[":
                yield from self.batches(key)
            else:
                self.value(key)
            if self.peek() == "}":
                break
            self.expect(",", key)
        self.expect("}", "")
        if self.peek():
            raise self.error("text after the end of the JSON object", "")

    def batches(self, key: str) -> Iterator[tuple[str, int, list[Any], list[str]]]:
        """The list that begins here, in batches."""
        self.position += 1
        batch: list[Any] = []
        non_finite: list[str] = []
        first = 0
        more = self.peek() != "]"
        while more:
            self.run(batch)
            place = f"{key}[{first + len(batch)}]"
            value, finite = self.value(place)
            batch.append(value)
            if not finite:
                non_finite.append(place)
            more = self.peek() == ","
            self.position += more
            if more and len(batch) >= BATCH:
                yield key, first, batch, non_finite
                first += len(batch)
                batch, non_finite = [], []
        self.expect("]", key)
        yield key, first, batch, non_finite

    def run(self, batch: list[Any]) -> None:
        """Append elements that end well within the buffer: the fast way through a long list.

        It stops before anything unusual; `value` meets the same place and knows what to do about it.
        """
        buffer, position = self.buffer, self.position
        end_of_run = len(buffer) - LAST_TOKEN
        try:
            while len(batch) < BATCH:
                blank = SPACE.match(buffer, position)
                value, end = self.scan(buffer, blank.end() if blank else position)
                if end >= end_of_run or buffer[end] != ",":
                    break
                batch.append(value)
                position = end + 1
        except (StopIteration, ValueError, RecursionError, _NotJsonError):
            pass
        self.position = position

    def value(self, place: str) -> tuple[Any, bool]:
        """The next value, and whether it is free of NaN and Infinity."""
        self.peek()
        while True:
            finite = True
            try:
                try:
                    value, end = self.strict(self.buffer, self.position)
                except _NotJsonError:
                    finite = False
                    value, end = self.tolerant(self.buffer, self.position)
                # A number may go on behind the end of the buffer, as 1.5e+ does.
                if end < len(self.buffer) - LAST_TOKEN or self.ended:
                    self.position = end
                    return value, finite
            except json.JSONDecodeError as error:
                at_end = error.pos >= len(self.buffer) - LAST_TOKEN or error.msg.startswith(
                    "Unterminated string"
                )
                if self.ended or not at_end:
                    self.position = error.pos
                    raise self.error(error.msg, place) from error
            except (
                ValueError,
                RecursionError,
            ) as error:  # numbers of thousands of digits, lists in lists in lists
                raise self.error(str(error), place) from error
            if len(self.buffer) - self.position > LARGEST_VALUE:
                raise self.error(f"a value longer than {LARGEST_VALUE:,} characters", place)
            self.fill()

    def fill(self) -> None:
        """Drop what was read and append at least as much as is left: a long value then costs linear time."""
        rest = self.buffer[self.position :]
        more = self.file.read(max(CHUNK, len(rest)))
        self.dropped += self.position
        self.buffer = rest + more
        if self.unread:
            self.buffer = self.unread.sub(_emptied, self.buffer)
        self.position = 0
        self.ended = not more

    def peek(self) -> str:
        """The next character that is no blank, or nothing at the end of the file."""
        while True:
            while self.position < len(self.buffer):
                letter = self.buffer[self.position]
                if letter not in " \t\r\n":
                    return letter
                self.position += 1
            if self.ended:
                return ""
            self.fill()

    def expect(self, letter: str, place: str) -> None:
        if self.peek() != letter:
            raise self.error(f"expected {letter!r}, got {self.peek()!r}", place)
        self.position += 1

    def error(self, message: str, place: str) -> DataError:
        where = f" in {place}" if place else ""
        return DataError(
            f"{self.path}: broken JSON{where}, character {self.dropped + self.position}: {message}"
        )
