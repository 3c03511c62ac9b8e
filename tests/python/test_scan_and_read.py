"""What the byte scan and the two readers make of a file, well-formed or not."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ingest.columns import column_names
from ingest.errors import FileRefused

from .conftest import read

OPEN = "a quote is opened and not closed"
FEW = "1 fields found, 2 expected"
# What the file holds, the rows that come of it, and the rejects as (line, reason, text).
FILES = {
    "plain": (b"a,b\n1,2\n", [("1", "2")], []),
    "byte order mark": (b"\xef\xbb\xbfa,b\n1,2\n", [("1", "2")], []),
    "CRLF": (b"a,b\r\n1,2\r\n3,4\r\n", [("1", "2"), ("3", "4")], []),
    "CR": (b"a,b\r1,2\r3,4\r", [("1", "2"), ("3", "4")], []),
    "mixed line ends": (b"a,b\n1,2\r\n3,4\n", [("1", "2"), ("3", "4")], []),
    "no final line end": (b"a,b\n1,2\n3,4", [("1", "2"), ("3", "4")], []),
    "no final line end, CR": (b"a,b\r1,2\r3,4", [("1", "2"), ("3", "4")], []),
    "quoted line end": (b'a,b\n1,"x\ny"\n3,4\n', [("1", "x\ny"), ("3", "4")], []),
    "quoted CRLF": (b'a,b\r\n1,"x\r\ny"\r\n', [("1", "x\r\ny")], []),
    "quoted CR in LF": (b'a,b\n1,"x\ry"\n', [("1", "x\ry")], []),
    "quoted blank line": (b'a,b\n1,"x\n\ny"\n', [("1", "x\n\ny")], []),
    "quoted delimiter": (b'a,b\n"1,1",2\n', [("1,1", "2")], []),
    "doubled quotes": (b'a,b\n"""x""","y""z"\n', [('"x"', 'y"z')], []),
    "doubled quote at a line end": (b'a,b\n1,"x""\n""y"\n', [("1", 'x"\n"y')], []),
    "nothing, quoted nothing, NA": (
        b'a,b,c\n,"",NA\nNULL,"NA",\n',
        [(None, "", "NA"), ("NULL", "NA", None)],
        [],
    ),
    "leading zeros": (b"a,b\n0005,1.50\n", [("0005", "1.50")], []),
    "spaces": (b"a,b\n 1 ,  \n", [(" 1 ", "  ")], []),
    "space before a quote": (b'a,b\n1, "2"\n', [("1", ' "2"')], []),
    "space before a quote, header and all": (b'a, b\n1, "2"\n', [("1", ' "2"')], []),
    "space after a quote": (
        b'a,b\n"1" ,2\n3,4\n',
        [("3", "4")],
        [(2, "field 1: text after the closing quote", '"1" ,2')],
    ),
    "quotes inside bare text": (b'a,b\n5" x 3",1\nx"y",2\n', [('5" x 3"', "1"), ('x"y"', "2")], []),
    "number sign first": (b"a,b\n#1,2\n", [("#1", "2")], []),
    "number sign first in the header": (b"#a,b\n1,2\n", [("1", "2")], []),
    "backslashes": (b'a,b\n\\,"\\"\n', [("\\", "\\")], []),
    "semicolons": (b"a;b\n1,5;2\n", [("1,5", "2")], []),
    "tabs": (b"a\tb\n1,5\t2\n", [("1,5", "2")], []),
    "pipes": (b"a|b\n1,5|2\n", [("1,5", "2")], []),
    "as many commas as semicolons in the header": (
        b"net, gross;day\n5;1\n7,5;2\n",
        [("5", "1"), ("7,5", "2")],
        [],
    ),
    "more commas than semicolons in the header": (
        b"net, gross, tax;day\n5;1\n7,5;2\n",
        [("5", "1"), ("7,5", "2")],
        [],
    ),
    "another delimiter fits better, for a broken record": (
        b"a,b,c|d\n1,2,3|4\n5|6\n7,8,9|0\n",
        [("1", "2", "3|4"), ("7", "8", "9|0")],
        [(3, "1 fields found, 3 expected", "5|6")],
    ),
    "semicolons, and a quote inside a name": (b'5" pipe;"a,b"\n1;2\n', [("1", "2")], []),
    "semicolons, and a name over two lines": (b'"a\nb";c\n1;2\n', [("1", "2")], []),
    "delimiter declared": (b"sep=;\na,x;b\n1,y;2\n3\n", [("1,y", "2")], [(4, FEW, "3")]),
    "delimiter declared, CRLF and byte order mark": (
        b"\xef\xbb\xbfsep=|\r\na|b\r\n1|2\r\n",
        [("1", "2")],
        [],
    ),
    "delimiter declared in quotes, CR": (b'"SEP=\t"\ra\tb\r1\t2\r', [("1", "2")], []),
    "another delimiter declared": (b"sep=^\na^b\n1^2\n", [("1", "2")], []),
    "delimiter declared in UTF-16": ("sep=;\na;b\n1;2\n".encode("utf-16"), [("1", "2")], []),
    "delimiter declared in Windows-1252": (
        "sep=;\nGröße;b\n1;für\n".encode("cp1252"),
        [("1", "für")],
        [],
    ),
    "no declaration": (b"sep=;,b\n1,2\n", [("1", "2")], []),
    "other delimiter in a quoted name": (b'"a,b,c";d\n1;2\n', [("1", "2")], []),
    "header over two lines": (b'"a\nb",c\n1,2\n', [("1", "2")], []),
    "header only": (b"a,b\n", [], []),
    "header only, no line end": (b"a,b", [], []),
    "blank lines": (b"a,b\n\n1,2\n\n\n3,4\n\n", [("1", "2"), ("3", "4")], []),
    "blank lines in one column": (b'a\n1\n\n""\n', [("1",), (None,), ("",)], []),
    "text beyond ASCII": ("a,b\nZürich,東京\n".encode(), [("Zürich", "東京")], []),
    "stray quote": (
        b'a,b\n1,"x\n2,y\n3,z\n',
        [("2", "y"), ("3", "z")],
        [(2, OPEN, '1,"x')],
    ),
    "stray quote on the last line": (b'a,b\n1,x\n2,"y\n', [("1", "x")], [(3, OPEN, '2,"y')]),
    "stray quote alone": (b'a,b\n1,"x\n', [], [(2, OPEN, '1,"x')]),
    "stray quote after bare quotes that make the count even": (
        b'a,b\n1,x"\n2,"y\n',
        [("1", 'x"')],
        [(3, OPEN, '2,"y')],
    ),
    "two stray quotes": (
        b'a,b\n1,"x\n2,y\n3,"z\n4,w\n',
        [("2", "y"), ("4", "w")],
        [(2, OPEN, '1,"x'), (4, OPEN, '3,"z')],
    ),
    "too few fields": (b"a,b\n1\n2,3\n", [("2", "3")], [(2, "1 fields found, 2 expected", "1")]),
    "too many fields": (
        b"a,b\n1,2,3\n4,5\n",
        [("4", "5")],
        [(2, "3 fields found, 2 expected", "1,2,3")],
    ),
    "too many fields, the last one empty": (
        b"a,b\n1,2,\n4,5\n",
        [("4", "5")],
        [(2, "3 fields found, 2 expected", "1,2,")],
    ),
    "too many fields over two lines": (
        b'a,b\n1,"x\ny",2\n4,5\n',
        [("4", "5")],
        [(2, "3 fields found, 2 expected", '1,"x\ny",2')],
    ),
    "a byte that is not UTF-8": (
        b"a,b\n1,\xe9\n2,x\n",
        [("2", "x")],
        [(2, "byte 0xe9 is not valid UTF-8", "1,\\xe9")],
    ),
    "a letter of Windows-1252": (
        "a,b\n1,Zürich\n2,O\u2019Hare\n3,à\n".encode("cp1252"),
        [("1", "Zürich"), ("2", "O\u2019Hare"), ("3", "à")],
        [],
    ),
    "Windows-1252 in the header": ("Größe,b\n1,2\n".encode("cp1252"), [("1", "2")], []),
    "UTF-8 with a broken letter": (
        "a,b\n1,Zürich\n2,Zürich\n".encode()[:-6] + b"rich\n",
        [("1", "Zürich")],
        [(3, "byte 0xc3 is not valid UTF-8", "2,Z\\xc3rich")],
    ),
    "UTF-16, little end first": (
        "a,b\n1,東京\n".encode("utf-16"),
        [("1", "東京")],
        [],
    ),
    "UTF-16, big end first": (
        b"\xfe\xff" + 'a,b\r\n1,"x\r\ny"\r\n2\r\n'.encode("utf-16-be"),
        [("1", "x\r\ny")],
        [(4, "1 fields found, 2 expected", "2")],
    ),
    "nothing at all": (b"", [], []),
    "byte order mark alone": (b"\xef\xbb\xbf", [], []),
    "half of a surrogate pair": (
        b"a,b\n1,\xed\xa0\x80\n2,x\n",
        [("2", "x")],
        [(2, "byte 0xed is not valid UTF-8", "1,\\xed\\xa0\\x80")],
    ),
    "NUL": (b"a,b\n1,\0\n2,x\n", [("2", "x")], [(2, "a NUL byte", "1,\\x00")]),
}


@pytest.mark.parametrize("piece_bytes", [None, 1, 9])
@pytest.mark.parametrize("name", FILES)
def test_file(
    name: str, piece_bytes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the pieces in which an irregular file is read."""
    if piece_bytes:
        monkeypatch.setattr("ingest.read.PIECE_BYTES", piece_bytes)
    content, expected, rejected = FILES[name]
    _, rows, rejects, _ = read(tmp_path, content)
    assert rows == expected
    assert [(each.line, each.reason, each.raw_text) for each in rejects] == rejected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\na,b\n1,2\n", "blank line"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL bytes"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "not valid utf-16"),
        (b"gr\xff\xdfe,b\n1,2\n", "not valid UTF-8"),
        (b"\x1f\x8b\x08\0", "damaged gzip"),
        (b"PK\x03\x04", "damaged zip"),
        (b"PAR1\x15\0", "holds Parquet"),
        (b"SQLite format 3\0", "holds an SQLite database"),
        (b"<!DOCTYPE html>\n<html>", "holds an HTML page"),
        (b"\xef\xbb\xbf\r\n <HTML lang=en>", "holds an HTML page"),
        ("<html><body>502, Bad Gateway".encode("utf-16"), "holds an HTML page"),
        (b'<?xml version="1.0"?>\n<Error>', "holds XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "holds a pointer"),
        (b'{"id": 1, "name": "a"}\n', "holds JSON"),
        (b'[\n  {"id": 1},', "holds JSON"),
        (b"a,b;c\n1,2;3\n", "line 1: ',' or ';'"),
        (b"a|b\tc\n", "line 1: '\\\\t' or '\\|'"),
        (b"sep=\na;b\n", "line 1: declares"),
        (b"sep=x\naxb\n", "line 1: declares"),
        (b"sep=;\n", "line 2: found a blank line"),
        (b'sep=;\n"a\n', "line 2: the header cannot"),
        (b'"a,b\n1,2\n', "line 1"),
        (b'"a"b,c\n1,2\n', "line 1"),
        (b'a,b\r1,"x\ny"\r', "line 1: .* one kind of line end"),
        (b"a" * 2_000_000, "line 1"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "header",
    ["PAR1", "BZh", "BZhours", "%PDF", "<DATE>", "{id}", "[id]", "SQLite", "sep=", "sep=;x"],
)
def test_header_like_another_format(header: str, tmp_path: Path) -> None:
    """What begins as another format's files do is CSV where the rest of it is."""
    scan, rows, _, _ = read(tmp_path, f"{header},b\n1,2\n".encode())
    assert (scan.header, rows) == ((header, "b"), [("1", "2")])


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (("Flight Date", "TailNum", "arr-delay"), ["flight_date", "tail_num", "arr_delay"]),
        (("", " ", "a"), ["column_1", "column_2", "a"]),
        (("a", "A", "a", "a_2"), ["a", "a_2", "a_3", "a_2_2"]),
        (
            ("_file_id", "_row_number", "_dlt_load_id"),
            ["_file_id_2", "_row_number_2", "_dlt_load_id_2"],
        ),
        (("2nd", "order", "Größe"), ["_2nd", "order", "grou00dfe"]),
    ],
)
def test_column_names(header: tuple[str, ...], names: list[str]) -> None:
    assert column_names(header) == names


def test_column_names_beyond_ascii_do_not_fall_together() -> None:
    """Columns go by name: were both called `x`, files with another order would mix them up."""
    one, other = column_names(("日付", "東京")), column_names(("東京", "日付"))
    assert one == other[::-1]


def test_row_numbers_count_every_record(tmp_path: Path) -> None:
    _, rows, rejects, numbers = read(tmp_path, b"a,b\n1,x\n\n2\n3,x\n")
    assert (rows, numbers) == ([("1", "x"), ("3", "x")], [1, 3])
    assert [reject.line for reject in rejects] == [4]


def test_field_of_five_megabytes(tmp_path: Path) -> None:
    long = "x" * 5_000_000
    assert read(tmp_path, f"a,b\n1,{long}\n2,y\n".encode())[1] == [("1", long), ("2", "y")]
    for lines in ("x\n" * 2_500_000, "é\n" * 1_500_000):
        content = f'a,b\n1,"{lines}"\n2,y\n'.encode()
        assert read(tmp_path, content)[1] == [("1", lines), ("2", "y")]


def test_stray_quote_before_many_quoted_fields(tmp_path: Path) -> None:
    """It costs its line, whatever the lines that follow look like."""
    lines = [b'1,"x', *[b'"",y'] * 60_000]
    _, rows, rejects, _ = read(tmp_path, b"a,b\n" + b"\n".join(lines) + b"\n")
    assert (len(rows), len(rejects)) == (60_000, 1)


def test_irregular_file_of_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken record here and there: the regular pieces between, all of one size, are right."""
    monkeypatch.setattr("ingest.read.PIECE_BYTES", 1_000)
    expected, rejected, lines = [], [], []
    for number in range(20_000):
        if number % 1_500 == 700:
            lines.append(f'{number:05d},"')
            rejected.append((number + 2, OPEN, lines[-1]))
        else:
            lines.append(f'{number:05d},"text"')
            expected.append((f"{number:05d}", "text"))
    _, rows, rejects, numbers = read(tmp_path, "\n".join(["a,b", *lines, ""]).encode())
    assert rows == expected
    assert [(each.line, each.reason, each.raw_text) for each in rejects] == rejected
    assert numbers == [int(a) + 1 for a, _ in expected]


def test_too_many_rejects(tmp_path: Path) -> None:
    content = b"a,b\n1\n2\n3,4\n"
    assert len(read(tmp_path, content, max_rejects=2)[2]) == 2
    with pytest.raises(FileRefused, match=r"line 3: 1 fields found, 2 expected; .* the 1 allowed"):
        read(tmp_path, content, max_rejects=1)


def test_broken_records_are_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written in groups, by number and by size."""
    monkeypatch.setattr("ingest.read.REJECTS_GROUP", 4)
    monkeypatch.setattr("ingest.read.PIECE_BYTES", 1_000)
    lines = [f"{number}" for number in range(10)] + ["x" * 1_001, "y"]
    _, rows, rejects, _ = read(tmp_path, "\n".join(["a,b", *lines, ""]).encode())
    assert rows == []
    assert [(each.line, each.raw_text) for each in rejects] == list(enumerate(lines, 2))
    written = pq.ParquetFile(tmp_path / "file.rejects").metadata
    sizes = [written.row_group(group).num_rows for group in range(written.num_row_groups)]
    assert sizes == [4, 4, 3, 1]
