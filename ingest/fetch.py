"""Fetch public source files into the landing zone, as they are published.

\b
    python ingest/fetch.py bts --from 2023-01 --to 2023-12      a year of US flights
    python ingest/fetch.py bts --help                           the options, and more examples
    python ingest/load.py                                       load what was fetched
"""

import csv
import errno
import fcntl
import filecmp
import io
import json
import lzma
import os
import re
import signal
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import BinaryIO, Literal

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # Ctrl-C while the libraries are imported: there is nothing to undo, and no traceback to show.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import click
import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError, ReadTimeoutError
from urllib3.util import Retry, parse_url

from ingest.landing import is_url, sync
from ingest.report import Report, table

PROJECT = Path(__file__).resolve().parent.parent
BTS_URL = "https://www.transtats.bts.gov/PREZIP/"
BTS_FOLDER = Path("bts", "on_time")
# How BTS names a month's file, and how it did until about 2017.
BTS_NAMES = (
    "On_Time_Reporting_Carrier_On_Time_Performance_1987_present_{0.year}_{0.month}.zip",
    "On_Time_On_Time_Performance_{0.year}_{0.month}.zip",
)
BTS_FIRST_MONTH = date(1987, 10, 1)
BTS_MONTHS_LATE = 4
BTS_FIELDS = """
    Year Quarter Month DayofMonth DayOfWeek FlightDate Reporting_Airline DOT_ID_Reporting_Airline
    IATA_CODE_Reporting_Airline Tail_Number Flight_Number_Reporting_Airline
    OriginAirportID OriginAirportSeqID OriginCityMarketID Origin OriginCityName OriginState
    OriginStateFips OriginStateName OriginWac
    DestAirportID DestAirportSeqID DestCityMarketID Dest DestCityName DestState
    DestStateFips DestStateName DestWac
    CRSDepTime DepTime DepDelay DepDelayMinutes DepDel15 DepartureDelayGroups DepTimeBlk
    TaxiOut WheelsOff WheelsOn TaxiIn
    CRSArrTime ArrTime ArrDelay ArrDelayMinutes ArrDel15 ArrivalDelayGroups ArrTimeBlk
    Cancelled CancellationCode Diverted CRSElapsedTime ActualElapsedTime AirTime Flights
    Distance DistanceGroup CarrierDelay WeatherDelay NASDelay SecurityDelay LateAircraftDelay
    FirstDepTime TotalAddGTime LongestAddGTime
    DivAirportLandings DivReachedDest DivActualElapsedTime DivArrDelay DivDistance
"""
BTS_FIELDS_OF_LANDINGS = (
    "Airport AirportID AirportSeqID WheelsOn TotalGTime LongestGTime WheelsOff TailNum"
)
BTS_COLUMNS = BTS_FIELDS.split() + [
    f"Div{number}{field}" for number in range(1, 6) for field in BTS_FIELDS_OF_LANDINGS.split()
]
BTS_NAMES_UNTIL_2017 = {
    "Reporting_Airline": "UniqueCarrier",
    "DOT_ID_Reporting_Airline": "AirlineID",
    "IATA_CODE_Reporting_Airline": "Carrier",
    "Tail_Number": "TailNum",
    "Flight_Number_Reporting_Airline": "FlightNum",
}
# Every line ends with a comma: a last field that is empty and has no name.
BTS_HEADERS = (
    [*BTS_COLUMNS, ""],
    [*(BTS_NAMES_UNTIL_2017.get(name, name) for name in BTS_COLUMNS), ""],
)

USER_AGENT = f"ontime-fetch (flight punctuality warehouse) {requests.utils.default_user_agent()}"
CHUNK_BYTES = 1 << 16
MAX_WAIT_SECONDS = 600
INTERRUPTED = 130
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError),
)

Status = Literal["new", "changed", "unchanged", "not published", "failed"]


class MonthFailed(Exception):
    """One month cannot be had; the others can. The message says what was found and expected."""


class DamagedZip(MonthFailed):
    """What arrived is no intact zip file."""


class NotThere(Exception):
    """The server has no file of this name."""


class TryAgain(Exception):
    """A request failed in a way that may pass. `after` is the server's wish, in seconds."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


class NoAnswer(TryAgain):
    """The server cannot be reached at all: other months will fare no better."""


class MonthType(click.ParamType):
    """A month such as 2023-01, of those that BTS publishes; the value is its first day."""

    name = "YYYY-MM"

    def convert(self, value: str, parameter: object, context: object) -> date:
        """Parse the option's text; a wrong one is a usage error."""
        match = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", str(value), re.ASCII)
        if not match or match[1] == "0000":
            self.fail(f"{value!r}: expected a month, such as 2023-01")
        month = date(int(match[1]), int(match[2]), 1)
        if month < BTS_FIRST_MONTH:
            self.fail(f"{value!r}: the data begin in {BTS_FIRST_MONTH:%Y-%m}")
        return month


@dataclass(frozen=True)
class Outcome:
    """What became of one month: a line of the closing table. `size` is in bytes."""

    month: date
    status: Status
    size: int | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """How the server is asked; all times are in seconds."""

    base_url: str
    retries: int
    backoff: float
    pause: float
    timeout: float
    min_rows: int
    dry_run: bool


@click.group(help=__doc__)
def main() -> None:
    """Run the command. The text of `--help` is the module's."""


@main.command(short_help="Monthly files of all US flights.")
@click.option(
    "--from", "first", type=MonthType(), required=True, help="The first month, such as 2023-01."
)
@click.option("--to", "last", type=MonthType(), required=True, help="The last month.")
@click.option(
    "--landing",
    envvar="ONTIME_LANDING",
    metavar="FOLDER",
    help="The landing zone.  [default: landing/ in the project; environment: ONTIME_LANDING]",
)
@click.option(
    "--base-url",
    envvar="ONTIME_BTS_URL",
    default=BTS_URL,
    metavar="URL",
    help=f"Where the files are.  [default: {BTS_URL}; environment: ONTIME_BTS_URL]",
)
@click.option("--dry-run", is_flag=True, help="Ask what is new or changed, download nothing.")
@click.option(
    "--min-rows",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="Refuse a file with fewer records.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How often a request that failed is made again.",
)
@click.option(
    "--backoff",
    type=click.FloatRange(min=0),
    default=2,
    show_default=True,
    help="Seconds before the first retry; doubled for each further one, up to a minute.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=1,
    show_default=True,
    help="Seconds from one request to the next.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds without an answer, or without a byte of it, after which a request has failed.",
)
def bts(
    first: date,
    last: date,
    landing: str | None,
    base_url: str,
    dry_run: bool,
    min_rows: int,
    retries: int,
    backoff: float,
    pause: float,
    timeout: float,
) -> None:
    """Fetch the monthly on-time files of the US Bureau of Transportation Statistics.

    \b
        python ingest/fetch.py bts --from 2023-01 --to 2023-12
        python ingest/fetch.py bts --from 2023-01 --to 2023-12 --dry-run
        python ingest/fetch.py bts --from 2016-01 --to 2016-01 --base-url https://mirror.example/

    One zip file a month, of about 27 MB, goes into landing/bts/on_time/. The same command again
    downloads only what is missing or was changed at the source, and goes on where an earlier one
    was cut short. A file appears under its name when it is complete and was checked: an intact zip
    archive with one CSV file, of a known header and of that month.

    Exit codes: 0 all months are there, or not published yet; 1 a month failed, and the message
    says why; 2 the command line is wrong; 130 interrupted.
    """
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if first > last:
        raise click.UsageError(f"--from {first:%Y-%m} comes after --to {last:%Y-%m}")
    if not is_web_address(base_url):
        raise click.UsageError(f"--base-url {base_url!r}: expected http://... or https://...")
    if is_url(landing):
        raise click.UsageError(
            f"--landing {landing}: a fetch goes on from what it left in a folder: name one, and put"
            " its files into the bucket with ingest/land.py"
        )
    folder = Path(landing or PROJECT / "landing") / BTS_FOLDER
    settings = Settings(
        base_url.rstrip("/") + "/", retries, backoff, pause, timeout, min_rows, dry_run
    )
    fetcher = Fetcher(folder, settings, Report())
    try:
        outcomes = fetcher.fetch_all(first, last)
    except KeyboardInterrupt:
        fetcher.report.say("interrupted", f"\nInterrupted. {fetcher.what_is_kept()}")
        sys.exit(INTERRUPTED)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise click.ClickException(f"{error.filename or folder}: {reason}") from error
    click.echo(closing_table(outcomes))
    for outcome in outcomes:
        if outcome.note:
            label = outcome.status.capitalize()
            fetcher.report.say("note", f"{label}: {outcome.month:%Y-%m}: {outcome.note}")
    sys.exit(1 if any(outcome.status == "failed" for outcome in outcomes) else 0)


@dataclass(frozen=True)
class Note:
    """What is remembered of a file: where it came from and which version the server said it is.

    `size` (bytes) and `modified_ns` are those of the landed file: where they no longer hold, the
    file was put there by someone else.
    """

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    modified_ns: int | None = None

    @classmethod
    def read(cls, path: Path) -> "Note | None":
        """Return the note in a file, None where there is none or it is not understood."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the note into a file, at once."""
        arriving = path.with_name(f"{path.name}.arriving")
        arriving.write_text(json.dumps(asdict(self), indent=1) + "\n")
        arriving.replace(path)

    @property
    def range_condition(self) -> str | None:
        """What tells the server which version a part is of; a weak ETag cannot."""
        is_strong = self.etag and not self.etag.startswith("W/")
        return self.etag if is_strong else self.last_modified


class MonthFiles:
    """Where a month's file lies, and beside it, hidden from the loader, its note and its part."""

    def __init__(self, folder: Path, month: date):
        self.month = month
        self.names = [name.format(month) for name in BTS_NAMES]
        # A month keeps its name, whatever it was fetched by: under two names it would be loaded
        # twice.
        there = [name for name in self.names if (folder / name).exists()]
        self.path = folder / (there or self.names)[0]
        self.workspace = folder / ".fetch"
        self.note_path = self.workspace / f"{self.path.name}.json"
        self.part = self.workspace / f"{self.path.name}.part"
        self.part_note_path = self.workspace / f"{self.path.name}.part.json"

    def note(self) -> Note | None:
        """Return the note of the landed file, None where there is none or it is of another."""
        note = Note.read(self.note_path)
        if note is None or not self.path.exists():
            return None
        status = self.path.stat()
        is_its = (note.size, note.modified_ns) == (status.st_size, status.st_mtime_ns)
        return note if is_its else None

    def part_note(self) -> Note | None:
        """Return the note of the part, None where there is nothing to go on from."""
        has_bytes = self.part.exists() and self.part.stat().st_size > 0
        return Note.read(self.part_note_path) if has_bytes else None

    def write_note(self, note: Note) -> None:
        """Remember which version the landed file is."""
        status = self.path.stat()
        self.workspace.mkdir(exist_ok=True)
        replace(note, size=status.st_size, modified_ns=status.st_mtime_ns).write(self.note_path)

    def drop_part(self) -> None:
        """Remove the part and its note."""
        self.part.unlink(missing_ok=True)
        self.part_note_path.unlink(missing_ok=True)

    def land(self) -> Status:
        """Give the part, which was checked, the file's name; return what that amounts to."""
        if not self.path.exists():
            status = "new"
        elif filecmp.cmp(self.part, self.path, shallow=False):
            self.drop_part()
            return "unchanged"
        else:
            status = "changed"
        # On the disk before it has the name, and the name on the disk before the note.
        sync(self.part)
        self.part.replace(self.path)
        sync(self.path.parent)
        self.drop_part()
        return status

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other fetches from writing here. Raises click.ClickException where one does."""
        self.workspace.mkdir(parents=True, exist_ok=True)
        with (self.workspace / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise click.ClickException(
                    f"another fetch is writing into {self.path.parent}: wait until it has ended"
                ) from None
            yield


class Fetcher:
    """Asks a server for months, one request at a time, and lands what is new or changed."""

    def __init__(self, folder: Path, settings: Settings, report: Report):
        self.folder = folder
        self.settings = settings
        self.report = report
        self.files: MonthFiles | None = None
        self.next_request = 0.0
        self.session = requests.Session()
        # The bytes as they are: a part of a compressed body could not be gone on from.
        self.session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        self.retrying = Retrying(
            retry=retry_if_exception_type(TryAgain),
            stop=stop_after_attempt(settings.retries + 1),
            wait=self._wait,
            before_sleep=self._say_retry,
            reraise=True,
        )

    def fetch_all(self, first: date, last: date) -> list[Outcome]:
        """Fetch the months from `first` to `last`, both included; return what became of each.

        Raises OSError where the landing zone cannot be written to, and click.ClickException where
        another fetch is writing there.
        """
        outcomes = []
        silent = None
        for month in months(first, last):
            started = time.perf_counter()
            try:
                if silent:
                    raise MonthFailed(f"not asked for, as there was no answer for {silent:%Y-%m}")
                status, size = self.fetch(month)
                outcome = Outcome(month, status, size)
            except NotThere:
                outcome = self._missing(month)
            except (MonthFailed, TryAgain) as error:
                silent = month if isinstance(error, NoAnswer) else silent
                outcome = Outcome(month, "failed", note=str(error))
            outcome = replace(outcome, seconds=time.perf_counter() - started)
            outcomes.append(outcome)
            if outcome.size is not None and not self.report.is_terminal:
                self.report.say(
                    "fetched", f"{month:%Y-%m}: {outcome.status}, {outcome.size:,} bytes"
                )
        return outcomes

    def fetch(self, month: date) -> tuple[Status, int | None]:
        """Fetch one month; return what it amounts to, and its size in bytes.

        Raises NotThere, MonthFailed or, when all retries have failed, TryAgain.
        """
        # A month that has not ended cannot have been published: the server is spared.
        if month >= date.today().replace(day=1):
            raise NotThere
        self.files = MonthFiles(self.folder, month)
        for name in self.files.names:
            with suppress(NotThere):
                return self.retrying(self._ask, self.files, self.settings.base_url + name)
        raise NotThere

    def what_is_kept(self) -> str:
        """Say what an interrupted fetch leaves behind."""
        files = self.files
        if files is None or files.part_note() is None:
            return "Files appear whole or not at all; run again for the rest."
        size = files.part.stat().st_size
        return f"{size:,} bytes of {files.month:%Y-%m} are kept; run again to go on from there."

    def _missing(self, month: date) -> Outcome:
        today = date.today()
        age = (today.year - month.year) * 12 + today.month - month.month
        if age <= 0:
            return Outcome(month, "not published", note="this month has not ended yet")
        if age <= BTS_MONTHS_LATE:
            note = "the server does not have it yet; files come about two months late"
            return Outcome(month, "not published", note=note)
        names = " nor ".join(self.files.names)
        note = f"{self.settings.base_url} has neither {names}"
        return Outcome(month, "failed", note=note)

    def _wait(self, state: RetryCallState) -> float:
        after = state.outcome.exception().after
        if after is not None:
            return after
        backoff = self.settings.backoff
        return (wait_exponential(multiplier=backoff, max=60) + wait_random(0, backoff / 2))(state)

    def _say_retry(self, state: RetryCallState) -> None:
        self.report.say(
            "retry",
            f"{self.files.month:%Y-%m}: {state.outcome.exception()}; trying again in"
            f" {state.next_action.sleep:.1f} s ({state.attempt_number} of {self.settings.retries})",
        )

    def _ask(self, files: MonthFiles, url: str) -> tuple[Status, int | None]:
        """Make one request for a month, and land what comes."""
        note, part_note = files.note(), files.part_note()
        headers = {}
        known = note if note and note.url == url else None
        if known and known.etag:
            headers["If-None-Match"] = known.etag
        if known and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        offset = 0
        dry_run = self.settings.dry_run
        if part_note and part_note.url == url and part_note.range_condition and not dry_run:
            offset = files.part.stat().st_size
            headers["Range"] = f"bytes={offset}-"
            headers["If-Range"] = part_note.range_condition
        with self._request("HEAD" if dry_run else "GET", url, headers) as response:
            if response.status_code == 304 and known:
                return "unchanged", known.size
            if response.status_code == 416 and offset:
                # Nothing comes after the part: it may be complete, and was not landed yet.
                with files.locked():
                    return self._land(files, part_note, is_sure=False)
            check_answer(response, is_range=offset > 0)
            version = Note(url, response.headers.get("ETag"), response.headers.get("Last-Modified"))
            length = content_length(response)
            if response.status_code == 200:
                offset = 0
                if files.path.exists() and self._is_same(files, known, version, length):
                    if not dry_run:
                        files.write_note(version)
                    return "unchanged", files.path.stat().st_size
            if dry_run:
                return "changed" if files.path.exists() else "new", length
            with files.locked():
                self._receive(response, files, version, offset)
                return self._land(files, version, is_sure=length is not None and not offset)

    def _is_same(
        self, files: MonthFiles, known: Note | None, version: Note, length: int | None
    ) -> bool:
        """Tell whether an answer in full, not read yet, is the landed file once more.

        The server's own words decide, where it has any. Where not, or where the landed file is of
        unknown origin, it is the same when it has the same size and is intact.
        """
        for header in ("etag", "last_modified"):
            before, now = getattr(known, header, None), getattr(version, header)
            if before and now:
                return before == now
        if length != files.path.stat().st_size:
            return False
        with suppress(MonthFailed):
            check_zip(files.path, files.month, self.settings.min_rows)
            return True
        return False

    @contextmanager
    def _request(self, method: str, url: str, headers: dict) -> Iterator[requests.Response]:
        """Make one request, a pause after the one before. The body is not read yet."""
        time.sleep(max(0.0, self.next_request - time.monotonic()))
        timeout = self.settings.timeout
        try:
            response = self.session.request(
                method, url, headers=headers, timeout=timeout, stream=True, allow_redirects=True
            )
        except requests.Timeout as error:
            raise NoAnswer(f"no answer within {timeout:g} s") from error
        except requests.ConnectionError as error:
            reason = root_cause(error)
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise MonthFailed(
                    f"the server's certificate cannot be verified ({reason}): where its chain is"
                    " incomplete, name a file with the missing ones in REQUESTS_CA_BUNDLE"
                ) from error
            raise NoAnswer(f"no connection: {reason}") from error
        except requests.RequestException as error:
            raise MonthFailed(f"{url} cannot be asked for: {error}") from error
        finally:
            self.next_request = time.monotonic() + self.settings.pause
        with response:
            yield response

    def _receive(
        self, response: requests.Response, files: MonthFiles, version: Note, offset: int
    ) -> None:
        """Write the body to the part, from `offset` bytes on."""
        label = f"{files.month:%Y-%m}"
        if offset:
            if not is_the_rest(response, files, offset):
                files.drop_part()
                raise TryAgain("the server sent what does not fit the part that was kept")
            self.report.say("resumed", f"{label}: going on after {offset:,} bytes")
        else:
            files.drop_part()
            version.write(files.part_note_path)
        length = content_length(response)
        total = None if length is None else offset + length
        size = offset
        with files.part.open("ab") as part, self.report.progress(label, total, "bytes") as advance:
            advance(offset)
            try:
                # What has arrived is written, however little: it is kept when the rest fails.
                while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
                    part.write(chunk)
                    size += len(chunk)
                    advance(len(chunk))
            except ReadTimeoutError as error:
                raise TryAgain(
                    f"stalled for {self.settings.timeout:g} s {progress_in_words(size, total)}"
                ) from error
            except HTTPError as error:
                raise TryAgain(f"cut short {progress_in_words(size, total)}") from error
        if total is not None and size != total:
            raise TryAgain(f"cut short {progress_in_words(size, total)}")

    def _land(self, files: MonthFiles, version: Note, *, is_sure: bool) -> tuple[Status, int]:
        """Check the part and land it. `is_sure` tells that it is what the server sent, all of it.

        Where it is not, as two halves may be of two versions, a damaged one is fetched anew.
        """
        size = files.part.stat().st_size
        try:
            check_zip(files.part, files.month, self.settings.min_rows)
        except MonthFailed as error:
            files.drop_part()
            if isinstance(error, DamagedZip) and not is_sure:
                raise TryAgain(str(error)) from error
            raise
        status = files.land()
        files.write_note(version)
        return status, size


def is_web_address(url: str) -> bool:
    """Tell whether a text is the address of an HTTP server."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host)


def months(first: date, last: date) -> Iterator[date]:
    """Yield the first day of each month from `first` to `last`, both included."""
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        yield date(number // 12, number % 12 + 1, 1)


def check_answer(response: requests.Response, *, is_range: bool) -> None:
    """Raise what an answer means that does not bring a file: NotThere, TryAgain or MonthFailed."""
    code = response.status_code
    said = f"the server answered {code} {response.reason or ''}".rstrip()
    if code in (404, 410):
        raise NotThere
    if code == 429 or code >= 500:
        raise TryAgain(said, retry_after(response, said))
    if code == 206 and is_range:
        return
    if code != 200:
        raise MonthFailed(f"{said}; expected 200 OK with a zip file")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/"):
        raise MonthFailed(f"the server sent a page ({kind}); expected a zip file")


def is_the_rest(response: requests.Response, files: MonthFiles, offset: int) -> bool:
    """Tell whether an answer continues the part, and is of the same version of the file."""
    note = files.part_note()
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if note is None or start is None:
        return False
    is_next = int(start[1]) == offset == files.part.stat().st_size
    return is_next and response.headers.get("ETag", note.etag) == note.etag


def retry_after(response: requests.Response, said: str) -> float | None:
    """Return how many seconds the server wants to be left alone, None where it does not say.

    Raises MonthFailed where that is longer than anyone would wait here.
    """
    try:
        seconds = Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None
    if seconds > MAX_WAIT_SECONDS:
        raise MonthFailed(f"{said} and wants to be asked again in {seconds:,.0f} s: run again then")
    return seconds


def content_length(response: requests.Response) -> int | None:
    """Return how many bytes the body has, None where the server does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def progress_in_words(size: int, total: int | None) -> str:
    """Say how far a download came, in bytes."""
    return f"after {size:,} bytes" if total is None else f"after {size:,} of {total:,} bytes"


def root_cause(error: BaseException) -> str:
    """Say in a few words what the libraries wrapped in many."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error)


def check_zip(path: Path, month: date, min_rows: int) -> None:
    """Check that a file is an intact zip archive with the CSV file of one month.

    Raises DamagedZip where it is no zip file or a checksum is wrong, and MonthFailed where its
    content is not what is expected.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            csvs = [name for name in names if name.lower().endswith(".csv")]
            if len(csvs) != 1:
                held = ", ".join(names[:5]) or "nothing"
                raise MonthFailed(f"the zip file holds {held}; expected exactly one CSV file")
            with archive.open(csvs[0]) as stream:
                check_csv(stream, month, min_rows)
            # Reading to the end compares each member's checksum, also that of the read-me.
            damaged = archive.testzip() if len(names) > 1 else None
            if damaged:
                raise DamagedZip(f"the zip file is damaged: wrong checksum of {damaged}")
    except (*DAMAGE, OSError) as error:
        # Damage may point before the start of the file (EINVAL), and that found by a decompressor
        # has no number. Other errors are those of the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedZip(f"the file is not an intact zip file: {error}") from error


def check_csv(stream: BinaryIO, month: date, min_rows: int) -> None:
    """Check the header, the number of records and the month of a CSV file, which is read through.

    Raises MonthFailed, and what zipfile raises for damage.
    """
    lines = io.BufferedReader(stream, CHUNK_BYTES)
    header = lines.readline()
    if header.rstrip(b"\r\n").decode("latin-1") not in map(as_header, BTS_HEADERS):
        raise MonthFailed(header_difference(header))
    rows, first, last = 0, b"", b""
    for line in lines:
        first = first or line
        last = line
        rows += 1
    if rows < min_rows:
        raise MonthFailed(f"its CSV file has {rows:,} records; expected at least {min_rows:,}")
    for which, line in (("first", first), ("last", last)):
        record = fields(line)
        if len(record) != len(BTS_HEADERS[0]):
            raise MonthFailed(
                f"its {which} record has {len(record)} fields; expected {len(BTS_HEADERS[0])}"
            )
        found = f"{record[0]}-{record[2]:0>2}"
        if found != f"{month:%Y-%m}":
            raise MonthFailed(f"its {which} record is of {found}; expected {month:%Y-%m}")


def as_header(names: list[str]) -> str:
    """Return a header as BTS writes it: each name in quotes, and a comma after each."""
    return ",".join(f'"{name}"' if name else "" for name in names)


def fields(line: bytes) -> list[str]:
    """Return the fields of a line; a line that is none of CSV is one field."""
    text = line.decode("latin-1").rstrip("\r\n")
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        return [text]


def header_difference(header: bytes) -> str:
    """Say where a header first differs from both that are known."""
    found = fields(header)
    expected = min(BTS_HEADERS, key=lambda names: len(set(names) - set(found)))
    if found == expected:
        return "its header is not in quotes as it was in all files so far"
    for number, (name, known) in enumerate(zip(found, expected, strict=False), start=1):
        if name != known:
            return f"column {number} of its header is {name[:60]!r}; expected {known!r}"
    return f"its header has {len(found)} fields; expected {len(expected)}"


def closing_table(outcomes: list[Outcome]) -> str:
    """Format one line per month: month, bytes, status, seconds."""
    lines = [
        (
            f"{outcome.month:%Y-%m}",
            "-" if outcome.size is None else f"{outcome.size:,}",
            outcome.status,
            f"{outcome.seconds:.1f}",
        )
        for outcome in outcomes
    ]
    return table(("month", "bytes", "status", "seconds"), lines, left=(0, 2))


if __name__ == "__main__":
    main()
