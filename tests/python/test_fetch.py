"""Months are fetched whole, checked and only once, whatever the server does. No test asks BTS."""

import hashlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ingest import fetch as command

from .conftest import PROJECT, environment

FETCHER = (sys.executable, PROJECT / "ingest" / "fetch.py")
FIXTURE = PROJECT / "tests" / "fixtures" / "bts" / (command.BTS_NAMES[0].format(date(2023, 1, 1)))
FAST = ("--pause", 0, "--backoff", 0.01, "--timeout", 5, "--min-rows", 100)
JANUARY = ("--from", "2023-01", "--to", "2023-01")
# Whatever is not on this machine goes through a proxy that is not there: BTS is never asked.
NO_WAY_OUT = {
    **{f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")},
    **{f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS", "ALL")},
    "no_proxy": "127.0.0.1",
    "NO_PROXY": "127.0.0.1",
}

Answer = Callable[["Handler"], None]


def name_of(month: str, generation: int = 0) -> str:
    return command.BTS_NAMES[generation].format(date.fromisoformat(f"{month}-01"))


@cache
def csv_of(month: str) -> bytes:
    """The fixture's rows, as if they were of another month."""
    with zipfile.ZipFile(FIXTURE) as archive:
        text = archive.read(archive.namelist()[0])
    year, number = month.split("-")
    return re.sub(rb"(?m)^2023,1,1,", f"{year},1,{int(number)},".encode(), text)


def zip_of(*members: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


@cache
def month_zip(month: str, readme: str = "") -> bytes:
    return zip_of(("flights.csv", csv_of(month)), ("readme.html", readme.encode()))


class Server(ThreadingHTTPServer):
    """A file server on this machine: `script` is how it answers first, then it is honest."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], float]] = []
        self.has_etags = self.has_dates = self.says_length = True
        self.let_go = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/PREZIP/"

    def put(self, month: str, content: bytes | None = None, generation: int = 0) -> bytes:
        content = month_zip(month) if content is None else content
        self.files[name_of(month, generation)] = content
        return content

    def seen(self, header: str) -> list[str | None]:
        """What each request so far said in a header."""
        return [headers.get(header) for _, _, headers, _ in self.asked]

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that hang up: many tests do."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/PREZIP/")
        self.server.asked.append((self.command, name, dict(self.headers), time.monotonic()))
        answer = self.server.script.pop(0) if self.server.script else honest
        self.content = self.server.files.get(name)
        answer(self)

    # http.server looks for this name.
    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def validators(self) -> dict[str, str]:
        validators = {}
        if self.server.has_etags:
            validators["ETag"] = f'"{hashlib.md5(self.content).hexdigest()}"'
        if self.server.has_dates:
            version = int(hashlib.md5(self.content).hexdigest()[:7], 16)
            moment = datetime.fromtimestamp(version, UTC)
            validators["Last-Modified"] = format_datetime(moment, usegmt=True)
        return validators

    def reply(
        self, status: int, body: bytes = b"", sent: int | None = None, **headers: str
    ) -> None:
        """Answer with a body, of which only `sent` bytes come before the connection breaks."""
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        if status != 304 and self.server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
            self.wfile.flush()
        self.close_connection = sent is not None or not self.server.says_length


def honest(handler: Handler, sent: int | None = None, *, ranges: bool = True) -> None:
    """Answer as a good server does, but send at most `sent` bytes."""
    content, asked = handler.content, handler.headers
    if content is None:
        return handler.reply(404, b"not here", Content_Type="text/html")
    validators = handler.validators()
    if asked["If-None-Match"]:
        is_known = asked["If-None-Match"] == validators.get("ETag")
    else:
        is_known = asked["If-Modified-Since"] and asked["If-Modified-Since"] == validators.get(
            "Last-Modified"
        )
    if is_known:
        return handler.reply(304, **validators)
    start = 0
    if ranges and asked["Range"] and asked["If-Range"] in validators.values():
        start = int(re.fullmatch(r"bytes=(\d+)-", asked["Range"])[1])
        size = len(content)
        if start >= size:
            return handler.reply(416, Content_Range=f"bytes */{size}")
        span = f"bytes {start}-{size - 1}/{size}"
        return handler.reply(206, content[start:], sent, Content_Range=span, **validators)
    return handler.reply(200, content, sent, Content_Type="application/zip", **validators)


def cut(sent: int) -> Answer:
    return lambda handler: honest(handler, sent)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, b"no", **headers)


def stalled(sent: int) -> Answer:
    """Send some bytes and then nothing, until the test ends."""

    def answer(handler: Handler) -> None:
        honest(handler, sent)
        handler.server.let_go.wait(30)

    return answer


def slow(handler: Handler) -> None:
    """Send everything, bit by bit."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(handler.content)))
    handler.end_headers()
    for start in range(0, len(handler.content), 2_000):
        handler.wfile.write(handler.content[start : start + 2_000])
        handler.wfile.flush()
        time.sleep(0.02)


def ignoring_range(handler: Handler) -> None:
    honest(handler, ranges=False)


def hanging_up(handler: Handler) -> None:
    handler.close_connection = True


def page(handler: Handler) -> None:
    handler.reply(200, b"<html>Sorry</html>", Content_Type="text/html; charset=utf-8")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Zone:
    """A landing zone of a test's own, and the command that fills it."""

    def __init__(self, landing: Path, server: Server):
        self.landing = landing
        self.server = server
        self.folder = landing / "bts" / "on_time"

    def arguments(self, *args: object, fetcher: tuple[object, ...] = FETCHER) -> list[str]:
        return [str(arg) for arg in (*fetcher, "bts", *FAST, "--landing", self.landing, *args)]

    def environment(self) -> dict[str, str]:
        return environment("none", ONTIME_BTS_URL=self.server.url, **NO_WAY_OUT)

    def run(self, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
        fetcher = options.pop("fetcher", FETCHER)
        result = subprocess.run(
            self.arguments(*(args or JANUARY), fetcher=fetcher),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )
        assert "Traceback" not in result.stderr, result.stderr
        assert "Warning" not in result.stderr, result.stderr
        return result

    def fetch(self, *args: object, code: int = 0, **options: object) -> dict[str, tuple[str, str]]:
        """Run the command; return its table as {month: (bytes, status)}."""
        result = self.run(*args, **options)
        assert result.returncode == code, (result.stdout, result.stderr)
        header, _, *lines = result.stdout.splitlines()
        assert header.split() == ["month", "bytes", "status", "seconds"]
        cells = (re.split(r"\s{2,}", line) for line in lines)
        return {month: (size.replace(",", ""), state) for month, size, state, _ in cells}

    def status(self, *args: object, code: int = 0) -> list[str]:
        return [state for _, state in self.fetch(*args, code=code).values()]

    def landed(self) -> dict[str, bytes]:
        """What the loader would see."""
        return {
            path.name: path.read_bytes()
            for path in self.folder.glob("*")
            if not path.name.startswith(".")
        }

    def parts(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.glob(".fetch/*.part")]


@pytest.fixture
def zone(tmp_path: Path, server: Server) -> Zone:
    return Zone(tmp_path / "landing", server)


def test_headers_are_the_two_known_ones() -> None:
    """Counted over, as the names are put together: 109 and an empty one, five renamed in 2018."""
    now, before = command.BTS_HEADERS
    assert len(now) == len(before) == 110
    assert now[-1] == before[-1] == ""
    assert sum(a != b for a, b in zip(now, before, strict=True)) == 5
    header = csv_of("2023-01").splitlines()[0].decode()
    assert header == command.as_header(now)


def test_fetches_what_is_missing_and_then_what_changed(zone: Zone, server: Server) -> None:
    contents = [server.put(month) for month in ("2022-12", "2023-01", "2023-02")]
    span = ("--from", "2022-12", "--to", "2023-02")
    first = zone.fetch(*span)
    assert first == {
        month: (str(len(content)), "new")
        for month, content in zip(("2022-12", "2023-01", "2023-02"), contents, strict=True)
    }
    assert sorted(zone.landed().values()) == sorted(contents)
    assert all("ontime" in agent for agent in server.seen("User-Agent"))
    assert zone.status(*span) == ["unchanged"] * 3
    assert None not in server.seen("If-None-Match")[3:]

    changed = server.put("2023-01", month_zip("2023-01", readme="revised"))
    (zone.folder / name_of("2023-02")).unlink()
    assert zone.status(*span) == ["unchanged", "changed", "new"]
    assert zone.landed()[name_of("2023-01")] == changed
    assert not zone.parts()


def test_other_etag_for_the_same_bytes(zone: Zone, server: Server) -> None:
    """The file is left as it is, and what the server says now is remembered."""
    server.put("2023-01")
    server.script = [lambda handler: handler.reply(200, handler.content, ETag='"other"')]
    assert zone.status() == ["new"]
    before = (zone.folder / name_of("2023-01")).stat()
    assert zone.status() == ["unchanged"]
    assert (zone.folder / name_of("2023-01")).stat().st_mtime_ns == before.st_mtime_ns
    assert zone.status() == ["unchanged"]
    assert server.seen("If-None-Match")[1:] == ['"other"', server_etag(server)]


def server_etag(server: Server) -> str:
    return f'"{hashlib.md5(server.files[name_of("2023-01")]).hexdigest()}"'


@pytest.mark.parametrize("says_length", [True, False])
def test_server_that_names_no_version(zone: Zone, server: Server, says_length: bool) -> None:
    """Then the size decides, and where even that is not said, the bytes."""
    server.has_etags = server.has_dates = False
    server.says_length = says_length
    server.put("2023-01")
    assert zone.status() == ["new"]
    assert zone.status() == ["unchanged"]
    changed = server.put("2023-01", month_zip("2023-01", readme="revised"))
    assert zone.status() == ["changed"]
    assert list(zone.landed().values()) == [changed]


def test_only_last_modified(zone: Zone, server: Server) -> None:
    server.has_etags = False
    server.put("2023-01")
    server.script = [cut(5_000)]
    assert zone.status() == ["new"]
    assert zone.status() == ["unchanged"]
    assert server.seen("Range") == [None, "bytes=5000-", None]
    assert server.seen("If-Modified-Since")[2] is not None


@pytest.mark.parametrize("is_damaged", [False, True])
def test_file_put_there_by_hand(zone: Zone, server: Server, is_damaged: bool) -> None:
    """It is taken for the month's file if it has the size, and is intact."""
    content = server.put("2023-01")
    zone.folder.mkdir(parents=True)
    by_hand = bytes(len(content)) if is_damaged else content
    (zone.folder / name_of("2023-01")).write_bytes(by_hand)
    assert zone.status() == ["changed" if is_damaged else "unchanged"]
    assert list(zone.landed().values()) == [content]
    assert zone.status() == ["unchanged"]
    assert server.seen("If-None-Match")[-1] is not None


@pytest.mark.parametrize("answer", [cut(0), cut(4_000), hanging_up], ids=["0", "4000", "no"])
def test_broken_connection_is_gone_on_from(zone: Zone, server: Server, answer: Answer) -> None:
    content = server.put("2023-01")
    server.script = [answer, answer]
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]
    assert len(server.asked) == 3


def test_bytes_that_arrived_are_not_asked_for_again(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    server.script = [cut(6_000), cut(2_000)]
    assert zone.status() == ["new"]
    assert server.seen("Range") == [None, "bytes=6000-", "bytes=8000-"]
    assert server.seen("If-Range")[1:] == [server_etag(server)] * 2
    assert list(zone.landed().values()) == [content]


def test_gone_on_from_in_the_next_run(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    server.script = [cut(6_000)]
    result = zone.run(*JANUARY, "--retries", 0)
    assert result.returncode == 1
    assert f"cut short after 6,000 of {len(content):,} bytes" in result.stderr
    assert zone.landed() == {}
    assert zone.parts() == [content[:6_000]]
    result = zone.run()
    assert "2023-01: going on after 6,000 bytes" in result.stderr
    assert list(zone.landed().values()) == [content]


def test_server_that_ignores_range(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    server.script = [cut(6_000), ignoring_range]
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_server_that_sends_another_range(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")

    def from_the_start(handler: Handler) -> None:
        size = len(content)
        handler.reply(206, content, Content_Range=f"bytes 0-{size - 1}/{size}")

    server.script = [cut(6_000), from_the_start]
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_changed_while_it_was_cut_short(zone: Zone, server: Server) -> None:
    """Two halves of two versions are never put together."""
    server.put("2023-01", month_zip("2023-01", readme="the older version"))
    server.script = [cut(6_000)]
    zone.run(*JANUARY, "--retries", 0)
    content = server.put("2023-01")
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_part_that_was_damaged(zone: Zone, server: Server) -> None:
    """A part that does not fit is found out by the checksum, and the file fetched anew."""
    content = server.put("2023-01")
    server.script = [cut(6_000)]
    zone.run(*JANUARY, "--retries", 0)
    (part,) = zone.folder.glob(".fetch/*.part")
    part.write_bytes(bytes(6_000))
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_part_that_is_complete(zone: Zone, server: Server) -> None:
    """Killed between the last byte and the new name: nothing is downloaded twice."""
    content = server.put("2023-01")
    server.script = [cut(6_000)]
    zone.run(*JANUARY, "--retries", 0)
    (part,) = zone.folder.glob(".fetch/*.part")
    part.write_bytes(content)
    assert zone.status() == ["new"]
    assert server.seen("Range")[-1] == f"bytes={len(content)}-"
    assert list(zone.landed().values()) == [content]
    assert zone.status() == ["unchanged"]


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_server_in_trouble_is_asked_again(zone: Zone, server: Server, code: int) -> None:
    server.put("2023-01")
    server.script = [status(code)] * 3
    assert zone.status() == ["new"]
    assert len(server.asked) == 4


def test_retries_are_bounded_and_said(zone: Zone, server: Server) -> None:
    for month in ("2023-01", "2023-02"):
        server.put(month)
    server.script = [status(503)] * 3
    result = zone.run("--from", "2023-01", "--to", "2023-02", "--retries", 2)
    assert result.returncode == 1
    assert "the server answered 503 Service Unavailable; trying again in 0.0 s (1 of 2)" in (
        result.stderr
    )
    assert "Failed: 2023-01: the server answered 503 Service Unavailable" in result.stderr
    assert list(zone.landed()) == [name_of("2023-02")]


@pytest.mark.parametrize(("code", "form"), [(429, "seconds"), (503, "date")])
def test_retry_after(zone: Zone, server: Server, code: int, form: str) -> None:
    server.put("2023-01")
    # A date has whole seconds: this one is between one and two away.
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.script = [status(code, Retry_After="1" if form == "seconds" else moment)]
    assert zone.status() == ["new"]
    *_, asked = server.asked[0]
    *_, again = server.asked[1]
    assert again - asked >= (1 if form == "seconds" else 0.3)


def test_retry_after_longer_than_one_waits(zone: Zone, server: Server) -> None:
    server.script = [status(429, Retry_After="7200")]
    result = zone.run()
    assert result.returncode == 1
    assert "wants to be asked again in 7,200 s: run again then" in result.stderr
    assert len(server.asked) == 1


def test_pause_between_requests(zone: Zone, server: Server) -> None:
    for month in ("2023-01", "2023-02"):
        server.put(month)
    zone.status("--from", "2023-01", "--to", "2023-02", "--pause", 0.5)
    (*_, first), (*_, second) = server.asked
    assert second - first >= 0.5


def test_slow_server(zone: Zone, server: Server) -> None:
    """It is waited for as long as something comes."""
    content = server.put("2023-01")
    server.script = [slow]
    assert zone.status(*JANUARY, "--timeout", 0.5) == ["new"]
    assert list(zone.landed().values()) == [content]


def test_stalled_server(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    server.script = [stalled(6_000)]
    result = zone.run(*JANUARY, "--timeout", 0.3)
    assert result.returncode == 0
    assert f"stalled for 0.3 s after 6,000 of {len(content):,} bytes" in result.stderr
    assert server.seen("Range") == [None, "bytes=6000-"]
    assert list(zone.landed().values()) == [content]


def test_server_that_does_not_answer(zone: Zone, server: Server) -> None:
    """The other months are not asked for: they would fare no better."""
    server.script = [lambda handler: handler.server.let_go.wait(30)] * 2
    result = zone.run("--from", "2023-01", "--to", "2023-03", "--timeout", 0.3, "--retries", 1)
    assert result.returncode == 1
    assert "Failed: 2023-01: no answer within 0.3 s" in result.stderr
    assert "Failed: 2023-03: not asked for, as there was no answer for 2023-01" in result.stderr
    assert len(server.asked) == 2


def test_no_server_at_all(zone: Zone) -> None:
    result = zone.run(*JANUARY, "--base-url", "http://127.0.0.1:9/", "--retries", 1)
    assert result.returncode == 1
    assert "Failed: 2023-01: no connection: Connection refused" in result.stderr
    assert not zone.landing.exists()


def test_tests_cannot_reach_bts(zone: Zone) -> None:
    result = zone.run(*JANUARY, "--base-url", command.BTS_URL, "--retries", 0)
    assert result.returncode == 1
    assert "no connection: Connection refused" in result.stderr


def corrupt() -> bytes:
    content = bytearray(month_zip("2023-01"))
    content[5_000:5_004] = b"\0\1\2\3"
    return bytes(content)


def with_csv(text: bytes) -> bytes:
    return zip_of(("flights.csv", text))


BAD_FILES = {
    "page": (lambda: b"<html>Sorry</html>", "not an intact zip file"),
    "nothing": (lambda: b"", "not an intact zip file"),
    "corrupt": (corrupt, "not an intact zip file"),
    "cut at the source": (lambda: month_zip("2023-01")[:-100], "not an intact zip file"),
    "no CSV": (lambda: zip_of(("a.txt", b"1")), "holds a.txt; expected exactly one CSV file"),
    "two CSVs": (lambda: zip_of(("a.csv", b"1"), ("b.csv", b"2")), "holds a.csv, b.csv; expected"),
    "wrong month": (
        lambda: month_zip("2023-02"),
        "its first record is of 2023-02; expected 2023-01",
    ),
    "wrong month at its end": (
        lambda: with_csv(csv_of("2023-01") + csv_of("2022-12").splitlines(keepends=True)[-1]),
        "its last record is of 2022-12; expected 2023-01",
    ),
    "cut record": (
        lambda: with_csv(csv_of("2023-01")[:-50]),
        "fields; expected 110",
    ),
    "other column": (
        lambda: with_csv(csv_of("2023-01").replace(b'"Tail_Number"', b'"Tail"', 1)),
        "column 10 of its header is 'Tail'; expected 'Tail_Number'",
    ),
    "more columns": (
        lambda: with_csv(csv_of("2023-01").replace(b'TailNum",\n', b'TailNum","More",\n', 1)),
        "column 110 of its header is 'More'; expected ''",
    ),
    "no quotes": (
        lambda: with_csv(csv_of("2023-01").replace(b'"', b"")),
        "its header is not in quotes",
    ),
    "no CSV at all": (
        lambda: with_csv(b"<" * 200_000),
        "column 1 of its header is '<<<",
    ),
    "no rows": (
        lambda: with_csv(csv_of("2023-01").splitlines(keepends=True)[0]),
        "its CSV file has 0 records; expected at least 100",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_file_that_fails_the_check(zone: Zone, server: Server, kind: str) -> None:
    """It is not landed, what was found is said, and the other months are."""
    make, message = BAD_FILES[kind]
    server.put("2023-01", make())
    server.put("2023-02")
    result = zone.run("--from", "2023-01", "--to", "2023-02")
    assert result.returncode == 1
    assert re.search(rf"^Failed: 2023-01: .*{re.escape(message)}", result.stderr, re.MULTILINE)
    assert list(zone.landed()) == [name_of("2023-02")]
    assert zone.parts() == []
    assert server.asked[1][1] == name_of("2023-02")


def test_wrong_checksum_of_the_read_me(zone: Zone, server: Server) -> None:
    packed = zip_of(("readme.html", b"x" * 100), ("flights.csv", csv_of("2023-01")))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        checksum = archive.getinfo("readme.html").CRC.to_bytes(4, "little")
    server.put("2023-01", packed.replace(checksum, bytes(4)))
    result = zone.run()
    assert result.returncode == 1
    assert "wrong checksum of readme.html" in result.stderr
    assert zone.landed() == {}


def test_page_instead_of_a_file(zone: Zone, server: Server) -> None:
    server.script = [page]
    result = zone.run()
    assert result.returncode == 1
    assert "the server sent a page (text/html; charset=utf-8); expected a zip file" in result.stderr
    assert zone.landed() == {}


def test_bad_file_leaves_the_good_one(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    zone.fetch()
    server.put("2023-01", corrupt())
    assert zone.status(code=1) == ["failed"]
    assert list(zone.landed().values()) == [content]


def test_fewer_records_than_one_expects(zone: Zone, server: Server) -> None:
    server.put("2023-01")
    result = zone.run(*JANUARY, "--min-rows", 1_000)
    assert "its CSV file has 200 records; expected at least 1,000" in result.stderr
    assert zone.status(*JANUARY, "--min-rows", 200) == ["new"]


def test_older_name_and_header(zone: Zone, server: Server) -> None:
    """It is landed under the newer name, that of all months, and known again."""
    text = csv_of("2016-01")
    for new, old in command.BTS_NAMES_UNTIL_2017.items():
        text = text.replace(f'"{new}"'.encode(), f'"{old}"'.encode(), 1)
    content = server.put("2016-01", with_csv(text), generation=1)
    span = ("--from", "2016-01", "--to", "2016-01")
    assert zone.status(*span) == ["new"]
    assert zone.landed() == {name_of("2016-01"): content}
    assert zone.status(*span) == ["unchanged"]
    assert [name for _, name, _, _ in server.asked] == [
        name_of("2016-01"),
        name_of("2016-01", 1),
    ] * 2
    newer = server.put("2016-01")
    assert zone.status(*span) == ["changed"]
    assert zone.landed() == {name_of("2016-01"): newer}


def test_older_name_that_is_there_already(zone: Zone, server: Server) -> None:
    """A month is never there under two names."""
    content = server.put("2016-01")
    zone.folder.mkdir(parents=True)
    (zone.folder / name_of("2016-01", 1)).write_bytes(content)
    assert zone.status("--from", "2016-01", "--to", "2016-01") == ["unchanged"]
    assert zone.landed() == {name_of("2016-01", 1): content}


def months_ago(number: int) -> str:
    today = date.today()
    month = today.year * 12 + today.month - 1 - number
    return f"{month // 12:04}-{month % 12 + 1:02}"


def test_not_published_yet(zone: Zone, server: Server) -> None:
    span = ("--from", months_ago(4), "--to", months_ago(-2))
    result = zone.run(*span)
    assert result.returncode == 0
    assert zone.status(*span) == ["not published"] * 7
    assert f"Not published: {months_ago(4)}: the server does not have it yet" in result.stderr
    assert f"Not published: {months_ago(0)}: this month has not ended yet" in result.stderr
    assert {name for _, name, _, _ in server.asked} == {
        name_of(months_ago(number), generation) for number in range(1, 5) for generation in (0, 1)
    }
    assert not zone.landing.exists()


def test_missing_in_the_middle(zone: Zone, server: Server) -> None:
    server.put("2023-01")
    server.put("2023-03")
    result = zone.run("--from", "2023-01", "--to", "2023-03")
    assert result.returncode == 1
    assert f"Failed: 2023-02: {server.url} has neither {name_of('2023-02')}" in result.stderr
    assert len(zone.landed()) == 2


def test_other_answers(zone: Zone, server: Server) -> None:
    server.script = [status(403)]
    result = zone.run()
    assert result.returncode == 1
    assert "the server answered 403 Forbidden; expected 200 OK with a zip file" in result.stderr
    assert len(server.asked) == 1


def test_redirected(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    server.script = [status(302, Location=f"{server.url}{name_of('2023-01')}")]
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_dry_run(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    size = str(len(content))
    assert zone.fetch(*JANUARY, "--dry-run") == {"2023-01": (size, "new")}
    assert not zone.landing.exists()
    zone.fetch()
    assert zone.fetch(*JANUARY, "--dry-run") == {"2023-01": (size, "unchanged")}
    server.put("2023-01", month_zip("2023-01", readme="revised"))
    assert zone.status(*JANUARY, "--dry-run") == ["changed"]
    assert list(zone.landed().values()) == [content]
    assert [method for method, *_ in server.asked] == ["HEAD", "GET", "HEAD", "HEAD"]


def stopped(zone: Zone, server: Server, number: int) -> tuple[int, str]:
    """Stop a fetch by a signal when 6,000 bytes have come; return its exit code and messages."""
    server.script = [stalled(6_000)]
    process = subprocess.Popen(
        zone.arguments(*JANUARY),
        env=zone.environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts commands in the background with Ctrl-C ignored, tests perhaps, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 20
    while not any(len(part) == 6_000 for part in zone.parts()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, messages = process.communicate(timeout=20)
    return process.returncode, messages


def test_interrupted_and_gone_on(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    code, messages = stopped(zone, server, signal.SIGINT)
    assert code == 130
    assert "6,000 bytes of 2023-01 are kept; run again to go on from there." in messages
    assert "Traceback" not in messages
    assert zone.landed() == {}
    assert zone.status() == ["new"]
    assert server.seen("Range")[-1] == "bytes=6000-"
    assert list(zone.landed().values()) == [content]


def test_killed_and_gone_on(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    code, _ = stopped(zone, server, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert zone.landed() == {}
    assert zone.status() == ["new"]
    assert list(zone.landed().values()) == [content]


def test_two_at_once(zone: Zone, server: Server) -> None:
    """The second does not touch what the first one is writing."""
    server.put("2023-01")
    server.script = [stalled(6_000)]
    first = subprocess.Popen(
        zone.arguments(*JANUARY), env=zone.environment(), stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 20
    while not zone.parts() and time.monotonic() < until:
        time.sleep(0.02)
    result = zone.run()
    first.kill()
    first.wait()
    assert result.returncode == 1
    assert "another fetch is writing into" in result.stderr
    assert zone.landed() == {}


def test_notes_that_are_damaged(zone: Zone, server: Server) -> None:
    server.put("2023-01")
    zone.fetch()
    (note,) = zone.folder.glob(".fetch/*.json")
    assert json.loads(note.read_text())["etag"] == server_etag(server)
    for text in ("{", "[]", '{"other": 1}', '{"url": "x"}', ""):
        note.write_text(text)
        assert zone.status() == ["unchanged"], text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Missing option '--from'"),
        (("--from", "2023-01"), "Missing option '--to'"),
        (("--from", "2023-1", "--to", "2023-02"), "expected a month, such as 2023-01"),
        (("--from", "2023-13", "--to", "2023-14"), "expected a month, such as 2023-01"),
        (("--from", "0000-01", "--to", "2023-02"), "expected a month, such as 2023-01"),
        (("--from", "1987-09", "--to", "1987-10"), "the data begin in 1987-10"),
        (("--from", "2023-02", "--to", "2023-01"), "--from 2023-02 comes after --to 2023-01"),
        *(
            ((*JANUARY, "--base-url", url), "expected http://... or https://...")
            for url in ("ftp://example", "example.org", "http://", "http://[bad/", "http://a:99999")
        ),
        ((*JANUARY, "--retries", "-1"), "-1 is not in the range"),
        ((*JANUARY, "--timeout", "0"), "0.0 is not in the range"),
    ],
)
def test_wrong_command_line(zone: Zone, server: Server, args: tuple, message: str) -> None:
    result = subprocess.run(
        zone.arguments(*args), env=zone.environment(), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert server.asked == []
    assert not zone.landing.exists()


def test_landing_zone_that_cannot_be(zone: Zone, server: Server) -> None:
    server.put("2023-01")
    zone.landing.write_text("a file")
    result = zone.run()
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {zone.landing}")
    assert "not a directory" in result.stderr


def test_works_from_anywhere_and_in_every_spelling(
    zone: Zone, server: Server, tmp_path: Path
) -> None:
    server.put("2023-01")
    for fetcher, cwd in (
        (FETCHER, tmp_path),
        ((sys.executable, "-m", "ingest.fetch"), PROJECT),
        ((sys.executable, "fetch.py"), PROJECT / "ingest"),
    ):
        assert zone.run(*JANUARY, fetcher=fetcher, cwd=cwd).returncode == 0
    by_environment = subprocess.run(
        [*map(str, FETCHER), "bts", *JANUARY, "--pause", "0"],
        env=zone.environment() | {"ONTIME_LANDING": "landing"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "unchanged" in by_environment.stdout


def test_help_teaches(zone: Zone) -> None:
    for args, example in (
        (("--help",), "python ingest/fetch.py bts --from 2023-01 --to 2023-12"),
        (("bts", "--help"), "python ingest/fetch.py bts --from 2023-01 --to 2023-12 --dry-run"),
    ):
        result = subprocess.run([*map(str, FETCHER), *args], capture_output=True, text=True)
        assert result.returncode == 0
        assert any(line.strip().startswith(example) for line in result.stdout.splitlines())
    text = " ".join(result.stdout.split())
    assert f"[default: {command.BTS_URL}; environment: ONTIME_BTS_URL]" in text


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(zone: Zone, server: Server) -> None:
    content = server.put("2023-01")
    assert zone.run().stderr == f"2023-01: new, {len(content):,} bytes\n"
    server.put("2023-01", month_zip("2023-01", readme="revised"))
    terminal, end = pty.openpty()
    subprocess.run(
        zone.arguments(*JANUARY),
        env=zone.environment() | {"TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=end,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert "2023-01" in shown
    assert "100%" in shown
    assert "new," not in shown
