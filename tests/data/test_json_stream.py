"""The piecewise JSON reader gives what the standard library gives, wherever its buffer ends."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxmatch.data import json_stream
from boxmatch.data.json_stream import stream_lists
from boxmatch.errors import DataError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.text(max_size=8), values | st.lists(values, max_size=12), max_size=6)


def read(path):
    """The lists of a file, and the places of numbers that JSON does not have."""
    found, places = {}, []
    for key, first, batch, non_finite in stream_lists(path):
        assert first == len(found.setdefault(key, []))
        found[key] += batch
        places += non_finite
    return found, places


@settings(max_examples=80, deadline=None)
@given(
    document=documents,
    chunk=st.integers(1, 40),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_lists_come_out_as_the_standard_library_reads_them(
    tmp_path_factory, document, chunk, indent, ascii_only
):
    path = tmp_path_factory.getbasetemp() / "a.json"
    path.write_text(
        json.dumps(document, indent=indent, ensure_ascii=ascii_only), encoding="utf-8", errors="replace"
    )
    expected = {
        key: value for key, value in json.loads(path.read_text("utf-8")).items() if isinstance(value, list)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        patch.setattr(json_stream, "BATCH", 3)
        assert read(path) == (expected, [])


def test_long_lists_come_in_batches(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": list(range(10_000)), "b": []}))
    sizes = [(key, first, len(batch)) for key, first, batch, _ in stream_lists(tmp_path / "a.json")]
    assert [size[0] for size in sizes] == ["a", "a", "a", "b"]
    assert sum(size[2] for size in sizes) == 10_000


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_places_of_nan_and_infinity_are_told_and_reading_goes_on(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    (tmp_path / "a.json").write_text('{"x": NaN, "a": [1, NaN, {"b": [-Infinity]}, 2], "b": [Infinity]}')
    found, places = read(tmp_path / "a.json")
    assert places == ["a[1]", "a[2]", "b[0]"]
    assert found["a"][3] == 2


BROKEN = {
    "nothing": "",
    "blanks": "  \n ",
    "a list": "[1, 2]",
    "a number": "7",
    "two values": "{} {}",
    "cut in a list": '{"a": [1, 2',
    "cut in a text": '{"a": ["abc',
    "cut after a key": '{"a"',
    "cut after a colon": '{"a":',
    "cut after a list": '{"a": [1]',
    "comma at the end of a list": '{"a": [1, 2,]}',
    "comma at the end": '{"a": [1],}',
    "comma at the beginning": '{, "a": [1]}',
    "no comma": '{"a": [1 2]}',
    "no colon": '{"a" [1]}',
    "single quotes": "{'a': [1]}",
    "key without quotes": "{a: [1]}",
    "number as key": "{1: [1]}",
    "key twice": '{"a": [1], "a": [2]}',
    "comment": '{"a": [1 /* one */]}',
    "wrong escape": r'{"a": ["\x41"]}',
    "wrong code point": r'{"a": ["\u12"]}',
    "control character": '{"a": ["\x01"]}',
    "number with a leading zero": '{"a": [01]}',
    "plus sign": '{"a": [+1]}',
    "undefined": '{"a": [undefined]}',
    "deeper than Python goes": '{"a": [' + "[" * 100_000 + "]" * 100_000 + "]}",
    "number of 5 000 digits": '{"a": [' + "9" * 5000 + "]}",
}


@pytest.mark.parametrize("chunk", [5, 1 << 20])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_json_is_refused_by_file(tmp_path, monkeypatch, name, chunk):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    (tmp_path / "a.json").write_text(BROKEN[name])
    with pytest.raises(DataError, match=r"a\.json"):
        read(tmp_path / "a.json")


def test_the_element_and_character_of_a_fault_are_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2, {"b": oops}]}')
    with pytest.raises(DataError, match=r"a\[2\], character 19"):
        read(tmp_path / "a.json")


def test_bytes_that_are_no_utf8_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": ["\xff"]}')
    for name in ("a.json", "none.json", "."):
        with pytest.raises(DataError):
            read(tmp_path / name)


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read(tmp_path / "a.json") == ({"a": [1]}, [])


def test_an_early_fault_in_a_large_file_is_found_without_reading_it_all(tmp_path):
    with (tmp_path / "a.json").open("w") as file:
        file.write('{"a": [1, oops, ')
        file.write("0, " * 4_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\[1\]"):
        read(tmp_path / "a.json")
    assert tracemalloc.get_traced_memory()[1] < 6_000_000
    tracemalloc.stop()


def test_memory_stays_small_however_long_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 10_000)
    with (tmp_path / "a.json").open("w") as file:
        file.write('{"a": [0' + ', {"b": [1.5, 2.5]}' * 40_000 + "]}")
    tracemalloc.start()
    number = sum(len(batch) for _, _, batch, _ in stream_lists(tmp_path / "a.json"))
    assert number == 40_001
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


POLYGONS = [
    [],
    [[]],
    [[1, 2.5, -3e-7]],
    [[1, 2], [3, 4]],
    [[[1]]],
    {"counts": [1]},
    "[[1]]",
    None,
    [[1], "x"],
]


@pytest.mark.parametrize("chunk", [9, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_lists_of_numbers_under_an_unread_key_come_out_empty_and_nothing_else_changes(
    tmp_path, monkeypatch, chunk, indent
):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = 'a "polygon": [[1, 2]] in a text'
    elements = [
        {"id": k, "polygon": value, "polygons": value, "text": text} for k, value in enumerate(POLYGONS)
    ]
    (tmp_path / "a.json").write_text(json.dumps({"a": elements}, indent=indent))
    found = [part for _, _, batch, _ in stream_lists(tmp_path / "a.json", unread="polygon") for part in batch]
    for element, expected in zip(found, elements, strict=True):
        if expected["polygon"] in POLYGONS[1:4]:
            assert element.pop("polygon") in ([], expected.pop("polygon"))
        assert element == expected


def test_faults_inside_an_unread_list_are_still_found_where_they_break_the_file(tmp_path):
    for broken in ("[[1, 2]", "[[1, 2}]", "[[1, 2]], 3", "[[1, NaN"):
        (tmp_path / "a.json").write_text(f'{{"a": [{{"polygon": {broken}, "id": 1}}]}}')
        with pytest.raises(DataError, match="character"):
            list(stream_lists(tmp_path / "a.json", unread="polygon"))


def test_nan_in_an_unread_list_is_told(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [{"polygon": [[1, NaN]]}]}')
    assert [places for *_, places in stream_lists(tmp_path / "a.json", unread="polygon")] == [["a[0]"]]


def test_one_endless_value_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    monkeypatch.setattr(json_stream, "LARGEST_VALUE", 1000)
    (tmp_path / "a.json").write_text('{"a": ["' + "x" * 100_000 + '"]}')
    with pytest.raises(DataError, match="longer than"):
        read(tmp_path / "a.json")
