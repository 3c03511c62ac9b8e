"""JSON lines and Parquet are loaded by the rules of CSV: as text, by record, nothing lost."""

import gzip
import io
import json
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.json_lines import _Broken, _parse

from .conftest import Box, on_each_engine

ORDERS = "acme/orders/"


def parquet(**columns: pa.Array) -> bytes:
    """Return a Parquet file with these columns."""
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, row_group_size=2)
    return stream.getvalue()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)  # fmt: skip


@given(
    members=st.dictionaries(TEXT, VALUE),
    is_ascii=st.booleans(),
    space=st.sampled_from(["", " ", "\t"]),
)
def test_any_object_is_taken_as_it_is_written(members: dict, is_ascii: bool, space: str) -> None:
    """Beside what the standard library reads of it: strings as such, the rest as their text."""

    def text(value: object) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return json.dumps(value, ensure_ascii=is_ascii, separators=separators)

    separators = (f"{space},{space}", f"{space}:{space}")
    line = f"{space}{json.dumps(members, ensure_ascii=is_ascii, separators=separators)}{space}\r"
    assert _parse(line.encode()) == {name: text(value) for name, value in members.items()}


@given(line=st.text('{}[]":,\\u0123aeE+-. tfn\n', max_size=30).map(str.encode) | st.binary())
def test_what_is_taken_for_an_object_is_one(line: bytes) -> None:
    """No text is read that the standard library would not read, with the same names."""
    try:
        members = _parse(line)
    except _Broken:
        return
    assert list(json.loads(line)) == list(members)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "expected { at the start of the line"),
        (b'{"a":1,}', 'character 8: expected "name": value'),
        (b'{"a":01}', 'character 2: expected "name": value'),
        (b'{"a":1 "b":2}', "character 7: expected , or }"),
        (b'{"a":1.}', 'character 2: expected "name": value'),
        (b'{"a":NaN}', 'character 2: expected "name": value'),
        (b'{"a":[NaN]}', "NaN is no JSON value"),
        (b'{"a":1,"a":2}', "the name 'a' occurs twice"),
        (b'{"a":"\\u0000"}', "a NUL character"),
        (b'{"a":"\\ud800"}', "half a surrogate pair"),
        (b'{"a":"\\x"}', "a string that is no JSON"),
        (b'{"a":"\xff"}', "byte 0xff is not valid UTF-8"),
        (b'{"a":1} {"a":2}', "text after the object"),
        (b'{"a":' + b"[" * 100_000, "a value that is no JSON"),
        (b'{"a":"' + b"x" * 100_000, 'character 2: expected "name": value'),
    ],
)
def test_a_broken_line_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(_Broken) as raised:
        _parse(line)
    assert reason in str(raised.value)


def test_json_lines_in_every_packing(box: Box) -> None:
    lines = b'{"a": 1.50, "b": "x"}\r\n\n{"b": null, "c": [1, {"d": 1e5}]}\r\n'
    box.write(f"{ORDERS}a.jsonl", lines)
    box.write(f"{ORDERS}same.ndjson.gz", gzip.compress(lines))
    box.write(f"{ORDERS}wide.jsonl", b"\xef\xbb\xbf" + b'{"a": "\\u00e4\\n", "A": false, "": 3}')
    box.write(f"{ORDERS}utf16.jsonl", '{"a": "ü"}'.encode("utf-16"))
    with zipfile.ZipFile(box.landing / ORDERS / "z.zip", "w") as archive:
        archive.writestr("z.jsonl", '{"a": "zipped"}')
    assert {name: line[2] for name, line in box.load().items()} == {
        f"{ORDERS}a.jsonl": "new",
        f"{ORDERS}same.ndjson.gz": "duplicate",
        f"{ORDERS}utf16.jsonl": "new",
        f"{ORDERS}wide.jsonl": "new",
        f"{ORDERS}z.zip/z.jsonl": "new",
    }
    assert box.query("select a, b, c, a_2, column_3 from raw.acme_orders order by all") == [
        ("1.50", "x", None, None, None),
        ("zipped", None, None, None, None),
        ("ä\n", None, None, "false", "3"),
        ("ü", None, None, None, None),
        (None, None, '[1, {"d": 1e5}]', None, None),
    ]
    box.check_registry()
    assert {line[2] for line in box.load().values()} == {"unchanged", "duplicate"}


@on_each_engine
def test_broken_json_lines_cost_themselves(box: Box) -> None:
    lines = [f'{{"a": {number}}}' for number in range(500)]
    lines[7], lines[9], lines[300] = '{"a": "\\u0000"}', "", "no object"
    box.write(f"{ORDERS}a.jsonl", "\n".join(lines))
    assert box.load()[f"{ORDERS}a.jsonl"] == ("497", "2", "new")
    box.check_registry()
    assert box.query("select line, reason, raw_text from raw.rejected_rows order by line") == [
        (8, "a NUL character", '{"a": "\\u0000"}'),
        (301, "no JSON object: expected { at the start of the line", "no object"),
    ]
    numbers = box.query("select _row_number, a from raw.acme_orders order by _row_number")
    assert [(number, a) for number, a in numbers if number in (7, 9, 10, 499)] == [
        (7, "6"), (9, "8"), (10, "10"), (499, "499")
    ]  # fmt: skip
    box.write(f"{ORDERS}a.jsonl", "\n".join(["[", *(f"  {line}," for line in lines), "]"]))
    result = box.run()
    assert result.returncode == 1
    assert "line 6: character 11: text after the object; that is more broken" in result.stderr


@on_each_engine
def test_parquet_as_duckdb_writes_it_as_text(box: Box) -> None:
    content = parquet(
        **{"Text": pa.array(["0005", "", None, " x "])},
        number=pa.array([1, -2, None, 3], pa.int32()),
        price=pa.array([Decimal("1.50"), None, Decimal("0.10"), None]),
        share=pa.array([0.1, 1e20, None, 5.0]),
        day=pa.array([date(2024, 2, 29), None, None, None]),
        at=pa.array([datetime(2024, 2, 29, 12, tzinfo=UTC), None, None, None]),
        nested=pa.array([{"k": [1, None]}, None, None, None]),
        raw=pa.array([b"\x00a", None, None, None], pa.binary()),
        sure=pa.array([True, False, None, None]),
    )
    path = f"{ORDERS}year=2024/\\[a]*.parquet"
    box.write(path, content)
    box.load()
    box.check_registry()
    columns = 'text, number, price, share, day, "at", nested, raw, sure, _row_number'
    assert box.query(f"select {columns} from raw.acme_orders order by _row_number") == [
        ("0005", "1", "1.50", "0.1", "2024-02-29", "2024-02-29 12:00:00+00", "{'k': [1, NULL]}",
         "\\x00a", "true", 1),
        ("", "-2", None, "1e+20", None, None, None, None, "false", 2),
        (None, None, "0.10", None, None, None, None, None, None, 3),
        (" x ", "3", None, "5.0", None, None, None, None, None, 4),
    ]  # fmt: skip
    assert {line[2] for line in box.load("--verify").values()} == {"unchanged"}


@on_each_engine
def test_a_nul_in_parquet_costs_its_record(box: Box) -> None:
    values = [f"{number}" for number in range(400)]
    values[5] = "a\0b"
    box.write(
        f"{ORDERS}a.parquet", parquet(a=pa.array(values), b=pa.array([None] * 400, pa.int8()))
    )
    assert box.load()[f"{ORDERS}a.parquet"] == ("399", "1", "new")
    assert box.query("select line, reason, raw_text from raw.rejected_rows") == [
        (6, "a NUL character", '["a\\u0000b", null]')
    ]
    box.check_registry()


def test_parquet_that_is_damaged_or_odd(box: Box) -> None:
    content = parquet(a=pa.array([1, 2, 3]))
    box.write(f"{ORDERS}cut.parquet", content[:-20])
    box.write(f"{ORDERS}text.parquet", "a,b\n1,2\n")
    box.write(f"{ORDERS}holes.parquet", content[:4] + bytes(40) + content[44:])
    box.write(f"{ORDERS}none.parquet", parquet(a=pa.array([], pa.int32())))
    result = box.run()
    assert result.returncode == 1
    for name in ("cut", "text", "holes"):
        assert f"Refused: {ORDERS}{name}.parquet: a damaged Parquet file" in result.stderr
    assert "Traceback" not in result.stderr
    assert box.query("select path, rows_loaded from raw.landed_files") == [
        (f"{ORDERS}none.parquet", 0)
    ]
    assert "a" in box.columns("acme_orders")
