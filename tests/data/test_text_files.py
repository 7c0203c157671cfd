"""Hostile XML, YAML and text give our error, quickly and without growing."""

import time
import tracemalloc

import pytest

from boxmatch.data.text_files import parse_xml, read_text, read_yaml
from boxmatch.errors import DataError


def entity_bomb(levels: int) -> str:
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10 if k else "ten bytes."}">' for k in range(levels))
    return f"<!DOCTYPE annotation [{entities}]><annotation>&e{levels - 1};</annotation>"


BOMBS = {
    "entities in 8 levels": entity_bomb(8),
    "entities in 5 levels, which expat alone accepts": entity_bomb(5),
    "one long entity": f'<!DOCTYPE a [<!ENTITY x "{"x" * 100_000}">]><annotation>{"&x;" * 1000}</annotation>',
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "external document type": '<!DOCTYPE annotation SYSTEM "http://localhost:1/a.dtd"><annotation/>',
    "parameter entity": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]><annotation/>',
    "harmless document type": "<!DOCTYPE annotation><annotation/>",
}


@pytest.mark.parametrize("name", BOMBS)
def test_document_types_and_entities_are_refused_before_they_grow(tmp_path, name):
    (tmp_path / "a.xml").write_text(BOMBS[name])
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError, match="document type"):
        parse_xml(tmp_path / "a.xml")
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_very_deep_xml_is_parsed_or_refused_without_harm(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<annotation>" + "<object>" * 50_000 + "</object>" * 50_000 + "</annotation>"
    )
    assert len(parse_xml(tmp_path / "a.xml").findall("object")) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"   ",
        b"<annotation>",
        b"<annotation></object>",
        b"<annotation/><annotation/>",
        b"<html/>",
        b"{}",
        b"\xff\xfe\x00",
        b"<annotation>\xff</annotation>",
        b"<annotation>&unknown;</annotation>",
        b"<?xml version='1.0' encoding='no-such-code'?><annotation/>",
        b"<annotation a='1' a='2'/>",
        b"\0\0\0",
    ],
)
def test_broken_xml_is_refused(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(DataError):
        parse_xml(tmp_path / "a.xml")


def test_the_place_of_broken_xml_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation>\n<object>\n</annotation>")
    with pytest.raises(DataError, match="line 3"):
        parse_xml(tmp_path / "a.xml")


def test_xml_of_more_than_16_mb_is_refused_unread(tmp_path):
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(17_000_000)
    with pytest.raises(DataError, match="larger than"):
        parse_xml(tmp_path / "a.xml")


def test_text_that_is_missing_no_utf8_or_too_long_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    for path, limit in (
        (tmp_path / "a.txt", 99),
        (tmp_path / "none.txt", 99),
        (tmp_path, 99),
        (tmp_path / "a.txt", 2),
    ):
        with pytest.raises(DataError, match=path.name):
            read_text(path, limit)


YAML_TRAPS = {
    "tag that runs code": "a: !!python/object/apply:os.system ['true']",
    "tag of an object": "a: !!python/name:os.system",
    "unknown tag": "a: !secret b",
    "duplicate key": "a: 1\nb: 2\na: 3",
    "duplicate key further in": "a: {b: 1, b: 2}",
    "3 000 nested lists": "a: " + "[" * 3000 + "]" * 3000,
    "60 nested mappings": "a: " + "{a: " * 60 + "1" + "}" * 60,
    "alias bomb": "a0: &a0 [x]\n"
    + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)),
    "more than a million characters": "a: " + "x" * 1_100_000,
    "a number of 5 000 digits": "a: " + "1" * 5000,
    "list as key": "? [a, b]\n: 1",
    "tab": "a:\n\t- b",
    "open bracket": "a: [1, 2",
    "no mapping": "- a\n- b",
    "nothing": "",
    "plain text": "hello",
    "several documents": "a: 1\n---\nb: 2",
    "control character": "a: \x07",
}


@pytest.mark.parametrize("name", YAML_TRAPS)
def test_yaml_traps_are_refused_by_file(tmp_path, name):
    (tmp_path / "data.yaml").write_text(YAML_TRAPS[name])
    with pytest.raises(DataError, match=r"data\.yaml"):
        read_yaml(tmp_path / "data.yaml")


def test_yaml_scalars_are_what_they_look_like(tmp_path):
    (tmp_path / "data.yaml").write_bytes(
        "\ufeffrate: 1e-3\r\nno: no\r\ntime: 1:30\r\nzip: 0123\r\nflag: true\r\nday: 2020-01-01\r\n".encode()
    )
    assert read_yaml(tmp_path / "data.yaml") == {
        "rate": 0.001,
        "no": "no",
        "time": "1:30",
        "zip": 123,
        "flag": True,
        "day": "2020-01-01",
    }
