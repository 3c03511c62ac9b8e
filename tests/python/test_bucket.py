"""A landing zone in a bucket is loaded by the same rules as one in a folder."""

import gzip
import io
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ingest import bucket
from ingest.bucket import Bucket
from ingest.errors import FileRefused, LoadError
from ingest.landing import Folder, find_files

from .conftest import LOADER, ONE_BY_ONE, PROJECT, Box, BucketBox, content, environment

ORDERS = "acme/orders/"
WHERE_FROM = ("places", "modified_at")


def zipped(**members: str) -> bytes:
    """Return a zip archive with these members, the same bytes each time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.csv"), text)
    return packed.getvalue()


def deliver(box: Box) -> None:
    """Put files of every kind into a landing zone."""
    box.write(f"{ORDERS}plain.csv", "a,b\n1,x\n2,\n3,too,many\n" + "4,y\n" * 300)
    box.write(f"{ORDERS}ümlaut und mehr + %20.csv", "a,b\n5,ä\n")
    box.write(f"{ORDERS}packed.csv.gz", gzip.compress(b"a,b\n6,z\n", mtime=0))
    box.write(f"{ORDERS}2024/archive.zip", zipped(one="a,b\n7,z\n", two="a,c\n8,z\n"))
    box.write(f"{ORDERS}copy.csv", "a,b\n5,ä\n")
    box.write(f"{ORDERS}.hidden.csv", "a,b\n9,z\n")
    box.write(f"{ORDERS}.part/hidden.csv", "a,b\n9,z\n")
    box.write(f"{ORDERS}readme.txt", "no data")


def held(box: Box) -> tuple:
    """Return everything in a warehouse that does not depend on where files came from."""
    registry = "select * from raw.landed_files"
    without = ("_dlt_load_id", "loaded_at", "retired_at", *WHERE_FROM)
    return (*content(box)[:3], box.records(registry, *without))


def refusal(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Assert that a command left with one plain line; return it."""
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    [line] = result.stderr.splitlines()
    return line


def test_a_bucket_is_loaded_like_a_folder(box: Box, bucket_box: BucketBox) -> None:
    for each in (box, bucket_box):
        deliver(each)
    # What the console of AWS makes of an empty folder.
    bucket_box.store.touch(f"{bucket_box.url}/{ORDERS}empty/")
    assert bucket_box.run().returncode == 0
    box.load()
    assert held(bucket_box) == held(box)
    assert not bucket_box.workspace.exists()

    for each in (box, bucket_box):
        each.write(f"{ORDERS}plain.csv", "a,b\n1,new\n")
        each.write(f"{ORDERS}2024/archive.zip", zipped(one="a,b\n7,z\n", three="a,c\n9,z\n"))
        each.load()
    assert held(bucket_box) == held(box)


def test_unchanged_objects_are_not_read(bucket_box: BucketBox) -> None:
    """Who may only list the bucket can load when there is nothing new."""
    deliver(bucket_box)
    before = bucket_box.load()
    lister = bucket_box.server.variables("lister")
    again = bucket_box.load(**lister)
    assert {name: line[2] for name, line in again.items()} == {
        name: "duplicate" if line[2] == "duplicate" else "unchanged"
        for name, line in before.items()
    }
    # A copy onto itself changes its time, not its bytes.
    name = f"{bucket_box.url}/{ORDERS}plain.csv"
    bucket_box.store.copy(name, name, MetadataDirective="REPLACE", Metadata={"seen": "yes"})
    assert bucket_box.load(**lister) == again

    bucket_box.write(f"{ORDERS}plain.csv", "a,b\n1,new\n")
    result = bucket_box.run(**lister)
    assert result.returncode == 1
    assert f"Refused: {ORDERS}plain.csv: it cannot be read: Access Denied" in result.stderr
    assert bucket_box.query("select count(*) from raw.acme_orders where b = 'y'") == [(300,)]


def test_paths_are_urls_below_the_landing_zone(bucket_box: BucketBox) -> None:
    deliver(bucket_box)
    url = bucket_box.url
    assert list(bucket_box.load(f"{url}/{ORDERS}plain.csv")) == [f"{ORDERS}plain.csv"]
    assert set(bucket_box.load(f"{url}/{ORDERS}2024/")) == {
        f"{ORDERS}2024/archive.zip/one.csv",
        f"{ORDERS}2024/archive.zip/two.csv",
    }
    # Its old name is known, though the path does not name it; so it is the same file, not a new.
    bucket_box.write(f"{ORDERS}again.csv", bucket_box.store.cat(f"{url}/{ORDERS}plain.csv"))
    assert bucket_box.load(f"{url}/{ORDERS}again.csv")[f"{ORDERS}again.csv"][2] == "unchanged"
    assert "lies outside the landing zone" in refusal(bucket_box.run("s3://open/elsewhere"))
    assert "does not exist: expected an object" in refusal(bucket_box.run(f"{url}/nothing"))
    bucket_box.load("--forget", f"{url}/{ORDERS}2024/archive.zip")
    assert bucket_box.query("select count(*) from raw.acme_orders") == [(302,)]


def test_other_runs_know_the_bucket(bucket_box: BucketBox) -> None:
    """Dry run, verify, full refresh; and an object that is gone keeps its rows."""
    deliver(bucket_box)
    assert bucket_box.load("--dry-run")[f"{ORDERS}packed.csv.gz"] == ("~1", "?", "new")
    assert not bucket_box.database.exists()
    bucket_box.load()
    first = held(bucket_box)
    bucket_box.store.rm(f"{bucket_box.url}/{ORDERS}packed.csv.gz")
    bucket_box.load("--verify")
    bucket_box.load("--full-refresh")
    assert held(bucket_box)[:3] == first[:3]


def test_a_name_that_no_file_could_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 takes it; SeaweedFS does not, so the list is made up."""
    monkeypatch.setattr(Folder, "names", lambda *_: [f"{ORDERS}/double.csv"])
    with pytest.raises(LoadError, match="has an empty part: rename the object"):
        find_files(Folder(tmp_path))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ONTIME_LANDING": "s3://nobody/x"}, "s3://nobody/x cannot be read: The specified bucket"),
        ({"AWS_ACCESS_KEY_ID": "stranger"}, "The access key ID you provided does not exist"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "The request signature we calculated does not match"),
        (
            {"AWS_ACCESS_KEY_ID": ""},
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or",
        ),
        ({"AWS_ACCESS_KEY_ID": "lister", "ONTIME_LANDING": "s3://private/x"}, "Access Denied"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "AWS_ENDPOINT_URL right, and the store up?",
        ),
        ({"ONTIME_LANDING": "s3://"}, "names no bucket: expected s3://<bucket>/<folder>"),
        ({"ONTIME_LANDING": "nix://x"}, "nix://x cannot be opened: Protocol not known: nix"),
        ({"ONTIME_LANDING": "s3://open/nothing"}, "no CSV file found in s3://open/nothing"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_said_in_one_line(
    variables: dict[str, str], said: str, bucket_box: BucketBox
) -> None:
    no_other = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    assert said in refusal(bucket_box.run(**no_other | variables))
    assert not bucket_box.database.exists()


def test_without_the_extra(bucket_box: BucketBox) -> None:
    without = f"import sys; sys.modules['s3fs'] = None; sys.path[0] = {str(PROJECT)!r};"
    command = (sys.executable, "-c", without + "from ingest import load; load.main()")
    assert "run `pip install 'ontime[s3]'`" in refusal(bucket_box.run(command=command))


def test_a_folder_needs_none_of_it(box: Box) -> None:
    """Loading from a folder imports nothing of what buckets need."""
    box.write(f"{ORDERS}plain.csv", "a\n1\n")
    box.load()
    traced = (sys.executable, "-X", "importtime", *LOADER[1:])
    imports = box.run(command=traced).stderr
    assert "ingest.landing" in imports
    assert not {"fsspec", "s3fs", "ingest.bucket"} & set(imports.split())


@pytest.mark.parametrize(
    ("deed", "said"), [("write", "it changed while it was read"), ("rm", "it disappeared while")]
)
def test_an_object_that_changes_while_it_is_read(
    deed: str, said: str, bucket_box: BucketBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket_box.write(f"{ORDERS}plain.csv", "a,b\n1,x\n")
    for name, value in bucket_box.variables.items():
        monkeypatch.setenv(name, value)
    zone = Bucket(bucket_box.url)
    get = zone.store.get_file

    def get_and_change(*args: str) -> None:
        get(*args)
        bucket_box.write(f"{ORDERS}plain.csv", "a,b\n1,y\n") if deed == "write" else (
            bucket_box.store.rm(url)
        )

    monkeypatch.setattr(zone.store, "get_file", get_and_change)
    [name] = zone.names([])
    with zone.opened(tmp_path), pytest.raises(FileRefused, match=said):
        zone.fetch(zone.file(name))
    assert not list(tmp_path.iterdir())


def test_copies_beyond_the_limit_are_fetched_twice(
    bucket_box: BucketBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an object that changed in between is refused: what was checked is what is loaded."""
    for number in range(3):
        bucket_box.write(f"{ORDERS}{number}.csv", f"a,b\n{number},x\n")
    for name, value in bucket_box.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "KEPT_BYTES", 20)
    zone = Bucket(bucket_box.url)
    with zone.opened(tmp_path):
        files = [zone.fetch(zone.file(name)) for name in sorted(zone.names([]))]
        assert [file.path.exists() for file in files] == [False, True, True]
        assert zone.fetch(files[0]).path.read_text() == "a,b\n0,x\n"
        bucket_box.write(f"{ORDERS}1.csv", "a,b\n1,z\n")
        with pytest.raises(FileRefused, match="it changed while it was read"):
            zone.fetch(files[1])


def test_killed_while_it_loads_from_a_bucket(bucket_box: BucketBox) -> None:
    for number in range(6):
        rows = "\n".join(f"{number},{row}" for row in range(4000))
        bucket_box.write(f"{ORDERS}{number}.csv", f"a,b\n{rows}\n")
    started = time.monotonic()
    bucket_box.load(command=ONE_BY_ONE)
    duration, expected = time.monotonic() - started, held(bucket_box)
    chance = random.Random("bucket")
    hits = 0
    for turn in range(4):
        bucket_box.database.unlink()
        with subprocess.Popen(
            [*map(str, ONE_BY_ONE)],
            env=environment(bucket_box.database, **bucket_box.variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(duration * (turn + 1 + chance.random()) / 5)
            process.kill()
        hits += process.returncode == -signal.SIGKILL
        bucket_box.load()
        assert held(bucket_box) == expected
        assert not bucket_box.workspace.exists()
    assert hits >= 2
