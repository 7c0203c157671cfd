"""Hardened readers of plain text, XML and YAML: hostile input gives a DataError and nothing else."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree
import yaml

from boxmatch.errors import DataError
from boxmatch.strict_yaml import load_yaml

XML_BYTES = 16_000_000  # a VOC file holds about 300 bytes per object
YAML_BYTES = 4_000_000  # UTF-8 of the longest text that the loader takes


def read_text(path: Path, limit: int = 1_000_000_000) -> str:
    """A text file, UTF-8 with or without byte order mark.

    Raises:
        DataError: missing, unreadable, not UTF-8 or larger than `limit` bytes.
    """
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{path}: larger than {limit:,} bytes")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from error


def parse_xml(path: Path) -> Element:
    """Parse an XML file without entities or document type declarations.

    Raises:
        DataError: missing, too large, not well-formed, or with a document type declaration.
    """
    try:
        if path.stat().st_size > XML_BYTES:
            raise DataError(f"larger than {XML_BYTES:,} bytes")
        with path.open("rb") as file:
            tree = defusedxml.ElementTree.parse(file, forbid_dtd=True).getroot()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
    except defusedxml.DefusedXmlException as error:
        raise DataError("document type declarations and entities are not allowed in annotations") from error
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"not well-formed XML ({error})") from error
    if tree is None or tree.tag != "annotation":
        raise DataError(f"expected <annotation> as the outermost element, got <{getattr(tree, 'tag', '')}>")
    return tree


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML mapping with a loader that makes plain values only.

    Raises:
        DataError: missing, too long, too deep, with too many aliases, not YAML, a key that appears twice, or
            no mapping.
    """
    text = read_text(path, limit=YAML_BYTES)
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML ({' '.join(str(error).split())[:300]})") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: expected a mapping with keys such as 'names' and 'train', got {type(content).__name__}"
        )
    return content
