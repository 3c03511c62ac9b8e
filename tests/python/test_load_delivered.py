"""Files as they are delivered: packed, in archives, copied, moved, empty, forgotten."""

import bz2
import gzip
import json
import os
import random
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from .conftest import PROJECT, Box, LakeBox, closing_table, on_each_database, on_each_engine

ORDERS = "acme/orders/"
A, B, C = "id,name\n1,a\n", "id,name\n2,b\n3,b\n", "id,name\n4,c\n"
IDS = "select id from raw.acme_orders order by id"


def ids(box: Box) -> list[str]:
    return [value for (value,) in box.query(IDS)]


def write_zip(box: Box, name: str, members: Mapping[str, str | bytes]) -> Path:
    path = box.write(ORDERS + name, b"")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def statuses(box: Box, *args: object) -> dict[str, str]:
    return {name.removeprefix(ORDERS): status for name, (_, _, status) in box.load(*args).items()}


def test_same_content_however_it_is_packed_is_one_file(box: Box) -> None:
    """A file is known by its CSV's bytes: packed anew, it is not loaded again."""
    box.write(ORDERS + "a.csv", B)
    assert statuses(box) == {"a.csv": "new"}
    (box.landing / ORDERS / "a.csv").unlink()
    for name, packed in (
        ("a.csv.gz", gzip.compress(B.encode(), mtime=0)),
        ("a.csv.bz2", bz2.compress(B.encode())),
        ("a.csv.zst", zstd(B.encode())),
    ):
        path = box.write(ORDERS + name, packed)
        assert statuses(box) == {name: "unchanged"}
        noted = box.query("select path, bytes, compression, encoding from raw.landed_files")
        compression = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}[name.rsplit(".")[-1]]
        assert noted == [(ORDERS + name, len(packed), compression, "utf-8")]
        path.unlink()
    write_zip(box, "a.zip", {"a.csv": B})
    assert statuses(box) == {"a.zip/a.csv": "unchanged"}
    assert ids(box) == ["2", "3"]
    box.check_registry()


@on_each_database
def test_archive_of_many(box: Box) -> None:
    members = {"2013/a.csv": A, "b.CSV": B, "readme.html": "<p>", "__MACOSX/._a.csv": "x"}
    write_zip(box, "all.zip", members)
    result = box.run()
    assert result.returncode == 0, result.stderr
    assert f"or *.zip: {ORDERS}all.zip/readme.html" in result.stderr
    assert closing_table(result.stdout) == {
        ORDERS + "all.zip/2013/a.csv": ("1", "0", "new"),
        ORDERS + "all.zip/b.CSV": ("2", "0", "new"),
    }
    assert ids(box) == ["1", "2", "3"]
    assert set(statuses(box).values()) == {"unchanged"}
    # Delivered anew: one member is as it was, one has new bytes, and one is there no more.
    write_zip(box, "all.zip", {"b.CSV": C, "c.csv": A})
    assert statuses(box) == {"all.zip/b.CSV": "replaced", "all.zip/c.csv": "unchanged"}
    assert ids(box) == ["1", "4"]
    write_zip(box, "all.zip", {"c.csv": A})
    assert statuses(box) == {"all.zip/c.csv": "unchanged"}
    assert ids(box) == ["1"]
    box.check_registry()


def test_a_broken_member_costs_itself_and_is_read_again(box: Box) -> None:
    write_zip(box, "all.zip", {"a.csv": A, "bad.csv": "id,name\n1\n"})
    for status in ("new", "unchanged"):
        result = box.run()
        assert result.returncode == 1
        table = closing_table(result.stdout)
        assert [row[2] for row in table.values()] == [status, "refused"]
        assert "all.zip/bad.csv: line 2: 1 fields found" in result.stderr
    assert ids(box) == ["1"]
    box.check_registry()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv.gz",
            gzip.compress(b"a,b\n" + b"1,2\n" * 9999, mtime=0)[:-20],
            "a damaged gzip file",
        ),
        (
            "a.csv.bz2",
            bz2.compress(b"a,b\n" + random.Random(1).randbytes(999))[:-20],
            "a damaged bz2 file",
        ),
        ("a.csv.zst", zstd(b"a,b\n" + b"1,2\n" * 9999)[:-5], "a damaged zstd file"),
        ("a.zip", b"PK\x03\x04 and so on", "a damaged zip file"),
        ("a.csv", b"\x1f\x8b\x08\x00 and so on", "a damaged gzip file"),
    ],
)
def test_damaged_archive_is_refused(name: str, content: bytes, message: str, box: Box) -> None:
    box.write(ORDERS + name, content)
    box.write(ORDERS + "good.csv", A)
    result = box.run()
    assert result.returncode == 1
    assert f"Refused: {ORDERS}{name}: {message}" in result.stderr
    assert "Traceback" not in result.stderr
    assert ids(box) == ["1"]
    assert not box.workspace.exists()


def test_damage_inside_a_zip_is_refused(box: Box) -> None:
    path = write_zip(box, "a.zip", {"a.csv": "id,name\n" + "1,x\n" * 99_999})
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    result = box.run()
    assert result.returncode == 1
    assert "a.zip/a.csv: a damaged zip file" in result.stderr


def test_zip_without_csv(box: Box) -> None:
    write_zip(box, "a.zip", {"readme.html": "<p>"})
    result = box.run()
    assert result.returncode == 1
    assert "a zip archive without a CSV file (it holds readme.html)" in result.stderr


def test_plain_csv_under_a_packed_name(box: Box) -> None:
    """What a file is, its bytes say."""
    box.write(ORDERS + "a.csv.gz", A)
    box.write(ORDERS + "b.csv", gzip.compress(B.encode()))
    box.load()
    assert ids(box) == ["1", "2", "3"]


def test_unchanged_files_are_not_read(box: Box) -> None:
    """Neither plain ones, nor copies, nor archives: size and time of writing say it all."""
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "copy.csv", A)
    box.write(ORDERS + "b.csv.gz", gzip.compress(B.encode()))
    write_zip(box, "c.zip", {"c.csv": C, "copy.csv": A})
    first = statuses(box)
    assert sorted(first.values()) == ["duplicate", "duplicate", "new", "new", "new"]
    # Other bytes of the same size and time: only who reads them can tell.
    for path in (box.landing / ORDERS).iterdir():
        stamp = path.stat()
        path.write_bytes(bytes(stamp.st_size))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = statuses(box)
    assert {name: "unchanged" if was == "new" else was for name, was in first.items()} == again
    result = box.run("--verify")
    assert result.returncode == 1
    assert len(re.findall("line 1: the header holds NUL bytes", result.stderr)) == 4


@on_each_engine
def test_verify_finds_what_was_changed_behind_its_back(box: Box) -> None:
    path = box.write(ORDERS + "a.csv", B)
    box.load()
    assert statuses(box, "--verify") == {"a.csv": "unchanged"}
    stamp = path.stat()
    path.write_text(B.replace("3", "9"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert statuses(box) == {"a.csv": "unchanged"}
    assert statuses(box, "--verify") == {"a.csv": "replaced"}
    assert ids(box) == ["2", "9"]
    # And rows that somebody removed from the warehouse, or put there.
    box.execute("delete from raw.acme_orders where id = '9'")
    result = box.run("--verify")
    assert result.returncode == 1
    assert "raw.acme_orders holds 1 rows of acme/orders/a.csv" in result.stderr
    assert "says 2" in result.stderr
    box.load("--full-refresh")
    assert statuses(box, "--verify") == {"a.csv": "unchanged"}
    box.execute("insert into raw.acme_orders (id, _file_id) values ('7', 'by hand')")
    result = box.run("--verify", "--dry-run")
    if isinstance(box, LakeBox):
        # In a lake no reader sees a row that no load brought.
        assert result.returncode == 0, result.stderr
        assert ids(box) == ["2", "9"]
    else:
        assert result.returncode == 1
        assert "1 rows of the file id by hand" in result.stderr


def test_copies_that_are_not_selected_keep_their_rows(box: Box) -> None:
    """Of two copies one is overwritten, and only that one is loaded: the other still counts."""
    one = box.write(ORDERS + "one.csv", A)
    box.write(ORDERS + "two.csv", A)
    box.load()
    one.write_text(B)
    assert statuses(box, one) == {"one.csv": "new"}
    assert ids(box) == ["1", "2", "3"]
    assert statuses(box) == {"one.csv": "unchanged", "two.csv": "unchanged"}
    box.check_registry()


def test_where_bytes_also_lie_is_remembered(box: Box) -> None:
    """A run over some paths takes note of a copy elsewhere: later runs lose and double nothing."""
    one = box.write(ORDERS + "one.csv", A)
    box.load()
    two = box.write(ORDERS + "two.csv", A)
    assert statuses(box, two) == {"two.csv": "unchanged"}
    two.write_text(C)
    assert statuses(box, two) == {"two.csv": "new"}
    assert ids(box) == ["1", "4"]
    two.write_text(A)
    statuses(box, two)
    assert ids(box) == ["1"]
    two.unlink()
    one.write_text(C)
    assert statuses(box) == {"one.csv": "replaced"}
    assert ids(box) == ["4"]
    box.check_registry()


def test_member_that_is_dropped_but_lies_elsewhere(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    archive = write_zip(box, "p.zip", {"m.csv": A, "k.csv": C})
    box.load()
    write_zip(box, "p.zip", {"n.csv": B, "k.csv": C})
    box.load(archive)
    assert ids(box) == ["1", "2", "3", "4"]
    box.check_registry()


def test_plain_file_that_becomes_an_archive_and_back(box: Box) -> None:
    box.write(ORDERS + "x.zip", A)
    box.load()
    write_zip(box, "x.zip", {"m.csv": B})
    assert statuses(box) == {"x.zip/m.csv": "new"}
    assert ids(box) == ["2", "3"]
    box.write(ORDERS + "x.zip", C)
    assert statuses(box) == {"x.zip": "new"}
    assert ids(box) == ["4"]
    box.check_registry()


def test_rows_stay_until_what_replaces_them_is_in(box: Box) -> None:
    """Of two copies one is refused; of an archive delivered anew, the first or last member."""
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", A)
    box.load()
    box.write(ORDERS + "a.csv", "id,name\n1\n")
    box.write(ORDERS + "b.csv", C)
    assert box.run().returncode == 1
    assert ids(box) == ["1", "4"]
    box.write(ORDERS + "a.csv", B)
    box.load()
    assert ids(box) == ["2", "3", "4"]
    for name in ("a", "z"):
        write_zip(box, f"{name}.zip", {"m.csv": f"id,name\n{name},m\n"})
        box.load()
        write_zip(
            box, f"{name}.zip", {f"{name}.csv": "id,name\n1\n", "n.csv": f"id,name\n{name}2,n\n"}
        )
        assert box.run().returncode == 1
        assert ids(box)[3:] == [name, f"{name}2"]
        write_zip(box, f"{name}.zip", {"n.csv": f"id,name\n{name}2,n\n"})
        result = box.run()
        assert result.returncode == 0
        assert f"removed the 1 rows of {ORDERS}{name}.zip/m.csv as it was" in result.stderr
        assert ids(box)[3:] == [f"{name}2"]
        (box.landing / ORDERS / f"{name}.zip").unlink()
        box.load("--forget", ORDERS + f"{name}.zip")
    box.check_registry()


def test_empty_file_beside_another_empty_file(box: Box) -> None:
    box.write(ORDERS + "a.csv", b"")
    box.write(ORDERS + "b.csv", A)
    box.load()
    box.write(ORDERS + "b.csv", b"")
    result = box.run()
    assert result.returncode == 1
    assert "b.csv: is empty, and would remove the 1 rows" in result.stderr
    assert ids(box) == ["1"]


def test_empty_file_is_taken_but_never_for_rows(box: Box) -> None:
    path = box.write(ORDERS + "a.csv", b"")
    result = box.run()
    assert result.returncode == 0
    assert "a.csv: the file is empty" in result.stderr
    assert box.query("select records_read, header from raw.landed_files") == [(0, "[]")]
    assert statuses(box) == {"a.csv": "unchanged"}
    path.write_text(A)
    assert statuses(box) == {"a.csv": "replaced"}
    path.write_bytes(b"\xef\xbb\xbf")
    for arguments in (("--dry-run",), ()):
        result = box.run(*arguments)
        assert result.returncode == 1
        assert "would remove the 1 rows" in result.stderr
        assert ids(box) == ["1"]


@on_each_database
def test_forget(box: Box) -> None:
    path = box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", B)
    box.write(ORDERS + "copy.csv", B)
    write_zip(box, "c.zip", {"c.csv": C, "d.csv": "id,name\n5,d\n"})
    box.load()
    dry = box.run("--forget", path, "--dry-run")
    assert closing_table(dry.stdout) == {ORDERS + "a.csv": ("1", "0", "forgotten")}
    assert ids(box) == ["1", "2", "3", "4", "5"]
    # By path and by name, a file and all that an archive holds; nothing else is loaded.
    box.write(ORDERS + "new.csv", "id,name\n6,n\n")
    assert statuses(box, "--forget", path, "--forget", ORDERS + "c.zip") == {
        "a.csv": "forgotten",
        "c.zip/c.csv": "forgotten",
        "c.zip/d.csv": "forgotten",
    }
    assert ids(box) == ["2", "3"]
    for folder in ("acme", "acme/orders"):
        assert box.run("--forget", folder).returncode == 1
    recorded = box.query(
        "select path, retired_because, retired_at is not null from raw.landed_files"
        " where not is_current order by path"
    )
    assert recorded == [
        (ORDERS + "a.csv", "forgotten", True),
        (ORDERS + "c.zip/c.csv", "forgotten", True),
        (ORDERS + "c.zip/d.csv", "forgotten", True),
    ]
    box.check_registry()
    # Forgotten bytes stay away, also under another name, until they are asked for.
    path.rename(path.with_name("renamed.csv"))
    assert statuses(box) == {
        "b.csv": "unchanged",
        "c.zip/c.csv": "forgotten",
        "c.zip/d.csv": "forgotten",
        "copy.csv": "duplicate",
        "new.csv": "new",
        "renamed.csv": "forgotten",
    }
    assert statuses(box, "--full-refresh")["renamed.csv"] == "forgotten"
    assert statuses(box, "--full-refresh", path.with_name("renamed.csv")) == {
        "renamed.csv": "reloaded"
    }
    assert ids(box) == ["1", "2", "3", "6"]
    assert box.query("select retired_at from raw.landed_files where is_current") == [(None,)] * 3
    box.check_registry()
    # New bytes under a forgotten name are another file.
    write_zip(box, "c.zip", {"c.csv": "id,name\n7,c\n"})
    assert statuses(box)["c.zip/c.csv"] == "new"


def test_forget_what_is_not_there(box: Box) -> None:
    box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "copy.csv", A)
    box.load()
    for name, message in (
        ("acme/orders/b.csv", "no current file 'acme/orders/b.csv'"),
        (ORDERS + "copy.csv", "same bytes as acme/orders/a.csv"),
    ):
        result = box.run("--forget", name)
        assert result.returncode == 1
        assert message in result.stderr
    assert box.run("--forget", "a.csv", "--full-refresh").returncode == 2
    none = Box(box.landing, box.database.with_name("none.duckdb"))
    assert none.run("--forget", ORDERS + "a.csv").returncode == 1
    assert not none.database.exists()
    assert ids(box) == ["1"]


def test_json_for_machines(box: Box) -> None:
    rows = "1,x\n" * 300
    box.write(ORDERS + "a.csv", f"id,name\n{rows}1\n")
    box.write(ORDERS + "b.csv", "id,more\n1,x\n")
    box.write(ORDERS + "notes.txt", "")
    box.write(ORDERS + "bad.csv", '"')
    result = box.run("--json")
    assert result.returncode == 1
    assert result.stderr == ""
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert all({"time", "level", "event", "message"} <= set(event) for event in events)
    by_kind = {event["event"]: event for event in events}
    assert by_kind["left_alone"]["file"].endswith("notes.txt")
    assert by_kind["columns_changed"]["changes"]["added"] == ["more"]
    assert by_kind["rejected"]["level"] == "warning"
    assert (by_kind["rejected"]["rejected"], by_kind["rejected"]["first_line"]) == (1, 302)
    files = {event["file"]: event for event in events if event["event"] == "file"}
    assert files[ORDERS + "a.csv"]["rows"] == 300
    assert files[ORDERS + "bad.csv"]["status"] == "refused"
    assert files[ORDERS + "bad.csv"]["level"] == "error"
    assert "line 1" in files[ORDERS + "bad.csv"]["message"]
    assert by_kind["summary"]["by_status"] == {"new": 2, "refused": 1}
    failed = box.run("--json", box.landing / "nowhere", ONTIME_JSON="1")
    assert failed.returncode == 1
    (event,) = [json.loads(line) for line in failed.stdout.splitlines()]
    assert (event["event"], event["level"]) == ("not_there", "error")
    assert "nowhere" in event["message"]


# The real command, but something happens to a file at a moment that no test could hit: `moment`
# is the function before which it happens, `deed` what happens to the file `a.csv`.
MEANWHILE = """
import sys; sys.path[0] = {project!r}
from ingest import formats, load
original = formats.{moment}
def meanwhile(*args, **options):
    first = args[0].path
    result = None if {before} else original(*args, **options)
    if first.name == "a.csv":
        {deed}
    return original(*args, **options) if {before} else result
formats.{moment} = meanwhile
load.main()
"""
GROWS = 'first.open("a").write("9,z" + chr(10))'
GOES = "first.unlink()"


@pytest.mark.parametrize(
    ("moment", "before", "deed", "message"),
    [
        ("scan_file", True, GOES, "no such file"),
        ("scan_file", False, GROWS, "changed while it was read"),
        ("read_file", True, GROWS, "changed while it was read"),
        ("read_file", False, GROWS, "changed while it was read"),
        ("read_file", True, GOES, "no such file|cannot open file|No files found"),
        ("read_file", False, GOES, "no such file"),
    ],
)
def test_file_that_changes_or_goes_while_it_is_read(
    moment: str, before: bool, deed: str, message: str, box: Box
) -> None:
    """It is refused and said, the others are loaded, and the next run takes what is there."""
    path = box.write(ORDERS + "a.csv", A)
    box.write(ORDERS + "b.csv", B)
    code = MEANWHILE.format(project=str(PROJECT), moment=moment, before=before, deed=deed)
    result = box.run(command=(sys.executable, "-c", code))
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert re.search(f"Refused: {ORDERS}a.csv: .*({message})", result.stderr), result.stderr
    assert ids(box) == ["2", "3"]
    box.check_registry()
    box.load()
    assert ids(box) == (["1", "2", "3", "9"] if path.exists() else ["2", "3"])


@on_each_engine
def test_registry_of_an_earlier_release(box: Box) -> None:
    """It has fewer columns: they are added, and nothing is loaded again."""
    box.write(ORDERS + "a.csv", A)
    box.load()
    landed = ("file_format", "object_id", "media_type", "received_at", "landed_by")
    later = ("column_names", "column_changes", "places", "retired_at", "retired_because")
    for column in (*later, *landed):
        box.execute(f"alter table raw.landed_files drop column {column}")
    assert statuses(box, "--dry-run") == {"a.csv": "unchanged"}
    box.write(ORDERS + "b.csv", B)
    (box.landing / ORDERS / "a.csv").rename(box.landing / ORDERS / "c.csv")
    assert statuses(box) == {"b.csv": "new", "c.csv": "unchanged"}
    assert ids(box) == ["1", "2", "3"]
    box.check_registry()
