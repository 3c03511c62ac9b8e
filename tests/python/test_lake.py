"""Files of any kind are landed as they are, found again, and loaded if they hold rows."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.bucket import Bucket
from ingest.errors import LoadError
from ingest.land import land
from ingest.landing import Folder, kept_name

from .conftest import PROJECT, Box, BucketBox, environment, in_folder_and_bucket, on_each_engine
from .test_bucket import refusal

TO = ("--to", "acme/orders")
ORDERS = "acme/orders/"
PDF = b"%PDF-1.7 \x00\xff"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source(box: Box, name: str, content: bytes) -> Path:
    """Write a file that is to be landed."""
    path = box.database.parent / "from" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@in_folder_and_bucket
def test_landed_found_and_loaded(box: Box) -> None:
    """Any kind: with id, tags and metadata; versions are kept; the loader lists all of them."""
    csv, pdf = source(box, "ä b+%20.csv", b"a,b\n1,x\n"), source(box, "scan.pdf", PDF)
    result = box.land(csv, pdf, *TO, "--tag", "kind=täg +1", "--tag", "year=2024", "--by", "Zoë")
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["new", sha(b"a,b\n1,x\n")],
        ["new", sha(PDF)],
    ]
    assert box.read(f"{ORDERS}scan.pdf") == PDF

    # The same again: nothing is done, but tags are added.
    names = box.names()
    again = box.land(csv, *TO, "--tag", "year=2024")
    assert again.stdout.startswith("unchanged")
    assert box.land(csv, *TO, "--tag", "year=2025", "--tag", "more=yes").stdout.startswith("tagged")
    assert box.names() == names

    tags = {"kind": "täg +1", "year": "2024"}
    [found] = box.find("--id", sha(PDF)[:10].upper())
    assert found["tags"] == tags
    assert found["file"].endswith("/acme/orders/scan.pdf")
    assert (found["object_id"], found["bytes"], found["media_type"], found["landed_by"]) == (
        sha(PDF),
        len(PDF),
        "application/pdf",
        "Zoë",
    )
    [found] = box.find("--tag", "more=yes", "--tag", "kind=täg +1")
    assert found["tags"] == tags | {"year": "2025", "more": "yes"}
    since = found["received_at"][:19]
    assert len(box.find("--since", since)) == 2
    assert box.find("--since", "2999-01-01") == box.find("--source", "other") == []
    assert len(box.find("--source", "acme")) == len(box.find("--source", "acme/orders")) == 2

    assert {name: line[2] for name, line in box.load().items()} == {
        f"{ORDERS}scan.pdf": "new",
        f"{ORDERS}ä b+%20.csv": "new",
    }
    listed = "select path, media_type, tags, landed_by, file_format, rows_loaded, object_id"
    assert box.query(f"{listed} from raw.landed_files order by path") == [
        (f"{ORDERS}scan.pdf", "application/pdf", json.dumps(tags, ensure_ascii=False), "Zoë",
         "other", 0, sha(PDF)),
        (f"{ORDERS}ä b+%20.csv", "text/csv",
         json.dumps(found["tags"], ensure_ascii=False, sort_keys=False), "Zoë", "csv", 1,
         sha(b"a,b\n1,x\n")),
    ]  # fmt: skip
    assert {line[2] for line in box.load().values()} == {"unchanged"}

    # New bytes are a new version: the rows are replaced, the old file is kept.
    csv.write_bytes(b"a,b\n2,y\n")
    assert box.land(csv, *TO).stdout.startswith("replaced")
    old = kept_name(f"{ORDERS}ä b+%20.csv", sha(b"a,b\n1,x\n"))
    assert box.read(old) == b"a,b\n1,x\n"
    assert box.read(f"{ORDERS}ä b+%20.csv") == b"a,b\n2,y\n"
    [found] = box.find("--tag", "more=yes")
    assert not found["is_current"]
    assert found["file"].endswith(old)
    # Tags that are added later come to the registry, though the bytes are not read.
    time.sleep(1.1)
    box.land(pdf, *TO, "--tag", "late=yes")
    statuses = {name: line[2] for name, line in box.load().items()}
    assert statuses[f"{ORDERS}ä b+%20.csv"] == "replaced"
    assert box.query("select a from raw.acme_orders") == [("2",)]
    [(late,)] = box.query("select tags from raw.landed_files where file_format = 'other'")
    assert json.loads(late) == tags | {"late": "yes"}
    # And one that is there without a note is found, and gets one.
    box.write("acme/orders/by hand.csv", "a,b\n3,z\n")
    assert len(box.find()) == 4
    box.land(source(box, "by hand.csv", b"a,b\n3,z\n"), *TO)
    assert len(box.find("--id", sha(b"a,b\n3,z\n"))) == 1


@on_each_engine
def test_files_that_hold_no_rows_are_listed_on_each_engine(box: Box) -> None:
    """Replaced, forgotten, verified and loaded anew like others, though they have no table."""
    pdf = source(box, "scan.pdf", PDF)
    zipped = source(box, "empty.zip", b"PK\x05\x06" + bytes(18))
    box.land(pdf, zipped, "--to", "acme/papers", "--tag", "a=b")
    assert {line[2] for line in box.load().values()} == {"new"}
    assert {line[2] for line in box.load("--verify").values()} == {"unchanged"}
    assert {line[2] for line in box.load("--full-refresh").values()} == {"reloaded"}
    pdf.write_bytes(PDF * 3)
    box.land(pdf, "--to", "acme/papers")
    assert box.load()["acme/papers/scan.pdf"][2] == "replaced"
    box.load("--forget", "acme/papers/scan.pdf")
    assert box.query(
        "select bytes, is_current, retired_because from raw.landed_files order by bytes"
    ) == [(len(PDF), False, "replaced"), (22, True, None), (len(PDF) * 3, False, "forgotten")]
    assert "acme_papers" not in box.tables()
    box.write(f"{ORDERS}a.csv", "a\n1\n")
    box.load()
    assert box.query("select a from raw.acme_orders") == [("1",)]


def test_what_was_not_landed_is_left_alone(box: Box) -> None:
    box.write(f"{ORDERS}notes.txt", "by hand")
    box.write(f"{ORDERS}a.csv", "a\n1\n")
    assert "left alone, not *.csv, *.jsonl" in box.run().stderr
    assert box.query("select path from raw.landed_files") == [(f"{ORDERS}a.csv",)]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("nothing.csv", *TO), 1, "nothing.csv: no such file or directory"),
        ((".", *TO), 1, "is not a regular file"),
        ((".hidden.csv", *TO), 1, "a hidden name"),
        (("a.csv", "--to", "acme"), 2, "expected <source>/<table>"),
        (("a.csv", "--to", "../x"), 2, "expected <source>/<table>"),
        (("a.csv", *TO, "--tag", "novalue"), 2, "expected key=value"),
        (("a.csv", *TO, "--tag", "k=a;b"), 2, "expected key=value"),
        (("a.csv", *TO, "--tag", f"k={'x' * 257}"), 2, "and a value of 256"),
        (("a.csv", "b/a.csv", *TO), 2, "more than one file is called a.csv"),
        (("a.csv", *TO, *(f"--tag=k{n}=x" for n in range(11))), 1, "11 tags: expected 10 at most"),
    ],
)
def test_what_cannot_be_landed_is_said(
    args: tuple[str, ...], code: int, said: str, box: Box
) -> None:
    for name in ("a.csv", ".hidden.csv"):
        source(box, name, b"a\n1\n")
    result = box.land(*args, cwd=box.database.parent / "from")
    assert result.returncode == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not [name for name in box.names() if not name.endswith(".lake/lock")]


def test_landing_into_a_bucket_that_is_not_allowed(bucket_box: BucketBox) -> None:
    file = source(bucket_box, "a.csv", b"a\n1\n")
    result = bucket_box.land(file, *TO, AWS_ACCESS_KEY_ID="reader")
    assert "cannot be written: Access Denied" in refusal(result)
    assert bucket_box.names() == set()


def test_two_that_land_one_name_at_once(
    bucket_box: BucketBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one does not overwrite what the faster one put there."""
    for name, value in bucket_box.variables.items():
        monkeypatch.setenv(name, value)
    zone = Bucket(bucket_box.url)
    look = zone.there
    file = source(bucket_box, "a.csv", b"a\n1\n")
    written = []

    def look_and_let_another_write(name: str) -> object:
        found = look(name)
        written.append(b"a\n%d\n" % (2 + len(written)))
        bucket_box.write(name, written[-1])
        return found

    monkeypatch.setattr(zone, "there", look_and_let_another_write)
    for _ in ("a new name", "a name that is taken"):
        with pytest.raises(LoadError, match="somebody else changed it at this moment"):
            land(file, f"{ORDERS}a.csv", {}, "me", zone, tmp_path)
        assert bucket_box.read(f"{ORDERS}a.csv") == written[-1]


TAGS = st.dictionaries(
    st.sampled_from(["a", "ä b", "x/y", "1"]), st.text("aß0 +-=.:/@_", max_size=8), max_size=4
)
STEPS = st.lists(st.tuples(st.sampled_from([b"", b"a\n1\n", b"a\n2\n", PDF]), TAGS), max_size=6)


@given(steps=STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_landed_is_ever_lost(
    steps: list[tuple[bytes, dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is landed under one name: each content is there with its id, the last as current."""
    folder = tmp_path_factory.mktemp("steps")
    zone = Folder(folder / "landing")
    path = folder / "file.csv"
    name = f"{ORDERS}file.csv"
    current: bytes | None = None
    tags: dict[str, str] = {}
    for content, given_tags in steps:
        path.write_bytes(content)
        with zone.arriving("acme/orders") as copies:
            status, note = land(path, name, given_tags, "me", zone, copies)
        if content == current:
            assert status == ("unchanged" if tags | given_tags == tags else "tagged")
            tags = tags | given_tags
        else:
            assert status == ("new" if current is None else "replaced")
            current, tags = content, given_tags
        assert (note.object_id, note.tags) == (sha(content), tags)
        assert zone.note(zone.file(name)) == note
    kept = {file.path.parent.name: file.path.read_bytes() for file in zone.kept()}
    assert kept == {sha(content): content for content in kept.values()}
    assert {*kept.values(), current} >= {content for content, _ in steps}
    if current is not None:
        assert zone.file(name).path.read_bytes() == current


@in_folder_and_bucket
def test_killed_while_it_lands(box: Box) -> None:
    """At any moment: under its name lies the old file or the new one, whole."""
    old, new = (bytes([sign]) * (30 << 20) for sign in b"ab")
    file = source(box, "big.bin", old)
    assert box.land(file, *TO, "--tag", "v=1").returncode == 0
    file.write_bytes(new)
    started = time.monotonic()
    other = box.land(file, "--to", "acme/other")
    duration = time.monotonic() - started
    assert other.returncode == 0
    chance = random.Random("land")
    command = [sys.executable, str(PROJECT / "ingest" / "land.py"), str(file), *TO]
    variables = {"ONTIME_LANDING": str(box.landing)} | box.variables
    hits = 0
    for turn in range(5):
        with subprocess.Popen(
            command,
            env=environment(box.database, **variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(duration * (0.3 + 0.7 * (turn + chance.random()) / 5))
            process.kill()
        hits += process.returncode == -signal.SIGKILL
        there = box.read(f"{ORDERS}big.bin")
        assert there in (old, new)
        if there == new:
            break
    assert hits
    assert box.land(file, *TO).returncode == 0
    assert box.read(f"{ORDERS}big.bin") == new
    assert box.read(kept_name(f"{ORDERS}big.bin", sha(old))) == old
    [found] = box.find("--tag", "v=1")
    assert (found["object_id"], found["is_current"]) == (sha(old), False)
    assert not [name for name in box.names() if "arriving" in name]
