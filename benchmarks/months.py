"""Measure what a month more costs: load and build of many months, one more, one corrected.

\b
    python benchmarks/months.py                                 1, 12 and 60 months: hours
    python benchmarks/months.py --months 1,3 --flights 20000    a quick look

Writes months.json and its tables in README.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from importlib import metadata
from pathlib import Path

import click
from measure import (
    BENCHMARKS,
    PROJECT,
    FailedError,
    environment,
    integers,
    last_error,
    machine,
    measure,
    write_json,
    write_results,
)
from report import MIB, setting, table

# This process stays small, too: months are made, and flights counted, by others.
FIRST_YEAR = 2018
# A corrected month lacks one flight in so many.
LEFT_OUT = 50
LIMIT_SECONDS = 4 * 3600
GOAL_RATIO = 1.5
FILL, ADD, CORRECT, NOTHING = "fill", "add", "correct", "nothing"
STEPS = {
    FILL: "all months into no warehouse",
    ADD: "one month more",
    CORRECT: "one in the middle corrected",
    NOTHING: "nothing new",
}
COUNT = "select count(*) as flights from {{ ref('fct_flights') }}"


@dataclass(frozen=True)
class Inputs:
    """The monthly files, in order, and the folder of corrected ones, by the same names."""

    months: list[Path]
    corrected: Path


def put_inputs(work: Path, months: list[int], flights: int, seed: int) -> Inputs:
    """Make the monthly files that are not there yet: one more than the most, and corrected ones."""
    folder = work / "inputs" / f"{flights}-flights-seed-{seed}"
    there = folder / "months"
    make(there, 0, max(months) + 1, flights, seed)
    for number in months:
        make(folder / "corrected", number // 2, 1, flights, seed, LEFT_OUT)
    # In order of time: 2018_2 comes before 2018_10.
    files = sorted(there.glob("*.zip"), key=lambda path: numbers_in(path.stem)[-2:])
    return Inputs(files, folder / "corrected")


def make(folder: Path, first: int, months: int, *numbers: int) -> None:
    """Make months in a process of its own, from the one that is so many after January 2018 on."""
    month = f"{FIRST_YEAR + first // 12}-{first % 12 + 1:02}"
    click.echo(f"making {in_words(months)} from {month} on", err=True)
    command = [sys.executable, BENCHMARKS / "prezip.py", folder, month, months, *numbers]
    result = subprocess.run(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    if result.returncode:
        raise click.ClickException(f"no months could be made: {last_error(result.stderr)}")


def numbers_in(text: str) -> list[int]:
    """Return the numbers that stand in a text."""
    return [int(number) for number in re.findall(r"\d+", text)]


def rows_and_bytes(path: Path) -> tuple[int, int]:
    """Return how many flights a monthly file holds, and how many bytes its CSV has."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        with archive.open(name) as lines:
            return sum(1 for _ in lines) - 1, archive.getinfo(name).file_size


class Course:
    """What is done to one warehouse, from no file to the last correction.

    It is that of the target whose environment `variables` have: the default is the DuckDB file.
    """

    def __init__(self, folder: Path, months: int, inputs: Inputs, **variables: str):
        self.months = months
        self.variables = variables
        self.inputs = inputs
        self.folder = folder
        self.landing = folder / "landing" / "bts" / "on_time"
        self.database = folder / "warehouse.duckdb"
        self.measured: list[dict] = []
        self.flights = 0
        self.csv_bytes = 0
        shutil.rmtree(folder, ignore_errors=True)
        self.landing.mkdir(parents=True)

    def run(self) -> dict:
        """Take all steps; return the file's sizes in bytes, and what each process cost.

        Raises FailedError, also where the marts do not hold the flights that they should.
        """
        self.take_steps(*STEPS)
        before = self.database.stat().st_size
        self.measure("compact", "compact", [sys.executable, PROJECT / "ingest" / "compact.py"])
        self._check("compact")
        return {
            "months": self.months,
            "flights": self.flights,
            "csv_bytes": self.csv_bytes,
            "bytes_before": before,
            "bytes_after": self.database.stat().st_size,
            "measured": self.measured,
        }

    def take_steps(self, *steps: str) -> None:
        """Load and build in these steps, in the order of STEPS. Raises FailedError."""
        months = self.inputs.months
        comes = {
            FILL: months[: self.months],
            ADD: [months[self.months]],
            CORRECT: [self.inputs.corrected / months[self.months // 2].name],
            NOTHING: [],
        }
        # Parsed once before, as in any project that is not new: builds are compared with builds.
        measure(self._dbt("parse"), self.database, **self.variables)
        for step in steps:
            for path in comes[step]:
                self._put(path)
            self._step(step)

    def _put(self, path: Path) -> None:
        """Land a month, in place of the file that has its name."""
        place = self.landing / path.name
        rows, size = rows_and_bytes(path)
        if place.exists():
            old_rows, old_size = rows_and_bytes(place)
            rows, size = rows - old_rows, size - old_size
            place.unlink()
        os.link(path, place)
        self.flights += rows
        self.csv_bytes += size

    def _step(self, step: str) -> None:
        landing = self.landing.parents[1]
        load = [sys.executable, PROJECT / "ingest" / "load.py", "--landing", landing]
        self.measure(step, "load", load)
        self.measure(step, "build", self._dbt("build"))
        self._check(step)

    def measure(self, step: str, command: str, arguments: list[str | Path]) -> None:
        """Take note of what a command costs. Raises FailedError."""
        try:
            usage = measure(arguments, self.database, LIMIT_SECONDS, **self.variables)
        except FailedError as error:
            raise FailedError(f"{self.months} months, {step}, {command}: {error}") from error
        self.measured.append({"step": step, "command": command} | vars(usage))
        click.echo(f"{self.months} months, {step}: {command} {usage.seconds:.1f} s", err=True)

    def _check(self, step: str) -> None:
        """Compare the number of flights in the marts with that of the landed files."""
        found = self.count()
        if found != self.flights:
            raise FailedError(
                f"{self.months} months, {step}: fct_flights has {found:,} flights, the files have"
                f" {self.flights:,}"
            )

    def count(self) -> int:
        """Return the number of flights in the marts. dbt, which any engine answers, says it."""
        asked = self._dbt("show", "--quiet", "--output", "json", "--inline", COUNT)
        answer = subprocess.run(
            list(map(str, asked)),
            env=environment(self.database) | self.variables,
            capture_output=True,
            text=True,
        )
        if answer.returncode:
            raise FailedError(last_error(answer.stdout + answer.stderr))
        [row] = json.loads(answer.stdout)["show"]
        return row["flights"]

    def _dbt(self, command: str, *args: str) -> list[str | Path]:
        """Return a command of dbt that leaves nothing in the project's folder."""
        own = ["--project-dir", PROJECT, "--profiles-dir", PROJECT]
        out = ["--target-path", self.folder / "target", "--log-path", self.folder / "logs"]
        return [
            Path(sys.executable).with_name("dbt"),
            command,
            "--no-use-colors",
            *args,
            *own,
            *out,
        ]


def seconds(course: dict, step: str, *commands: str) -> float:
    """Return how long the commands of a step took together."""
    return sum(
        each["seconds"]
        for each in course["measured"]
        if each["step"] == step and each["command"] in commands
    )


def markdown(results: dict) -> str:
    """Return everything that the figures say."""
    courses = results["courses"]
    parts = [
        setting(results),
        f"{results['flights']:,} flights a month; the last corrected one lacks one in {LEFT_OUT}.",
        "### Goals for months",
        goals(courses),
    ]
    for course in courses:
        parts += [f"### {in_words(course['months'])}", costs(course)]
    parts += ["### The file", sizes(courses)]
    return "\n\n".join(parts)


def in_words(months: int) -> str:
    """Say how many months."""
    return "1 month" if months == 1 else f"{months} months"


def goals(courses: list[dict]) -> str:
    """Compare with the goals: the largest warehouse with the smallest."""
    first, last = courses[0], courses[-1]

    def per_month(course: dict, *commands: str) -> float:
        return seconds(course, FILL, *commands) / course["months"]

    both = ("load", "build")
    alone = seconds(first, FILL, *both)
    rows = [
        (
            f"a month more to {last['months']}: times the first one",
            seconds(last, ADD, *both) / alone if first["months"] == 1 else None,
        ),
        *(
            (
                f"{command} of {last['months']}, per month: times that of {first['months']}",
                max(per_month(course, command) for course in courses) / per_month(first, command)
                if len(courses) > 1
                else None,
            )
            for command in both
        ),
    ]
    return table(
        ("goal", "at most", "measured", "met"),
        [
            (
                name,
                f"{GOAL_RATIO:g}",
                "-" if ratio is None else f"{ratio:.2f}",
                "not measured" if ratio is None else "yes" if ratio <= GOAL_RATIO else "**no**",
            )
            for name, ratio in rows
        ],
    )


def costs(course: dict) -> str:
    """Return the table of what each command cost at each step."""
    rows = []
    for each in course["measured"]:
        per_month = each["seconds"] / course["months"] if each["step"] == FILL else None
        rows.append(
            (
                STEPS.get(each["step"], "the file written anew"),
                each["command"],
                f"{each['seconds']:.1f}",
                "-" if per_month is None else f"{per_month:.1f}",
                f"{each['cpu_seconds']:.1f}",
                f"{each['peak_bytes'] / MIB:,.0f}",
            )
        )
    return table(
        ("step", "command", "seconds", "seconds per month", "CPU seconds", "peak MiB"), rows
    )


def sizes(courses: list[dict]) -> str:
    """Return the table of the sizes of the file and of its input."""
    return table(
        ("months at first", "flights at last", "CSV, MB", "warehouse, MB", "compacted, MB"),
        [
            (
                course["months"],
                f"{course['flights']:,}",
                *(f"{course[size] / 1e6:,.0f}" for size in ("csv_bytes", "bytes_before")),
                f"{course['bytes_after'] / 1e6:,.0f}",
            )
            for course in courses
        ],
    )


def of_months(months: str, *, flights: int, results: str) -> Callable[[Callable], Callable]:
    """Return the options of a benchmark of months, with these defaults."""
    folder = click.Path(file_okay=False, path_type=Path)
    options = (
        click.option(
            "--months",
            default=months,
            show_default=True,
            callback=integers,
            help="How many months are in the warehouse before one more comes.",
        ),
        click.option(
            "--flights", default=flights, show_default=True, help="Flights of each month."
        ),
        click.option(
            "--seed", default=1, show_default=True, help="Another one draws other flights."
        ),
        click.option(
            "--work",
            type=folder,
            help="Where months and warehouses go; months stay.  [default: a temporary folder]",
        ),
        click.option(
            "--out",
            default=BENCHMARKS,
            type=folder,
            help=f"Where {results} and README.md go.  [default: benchmarks/]",
        ),
    )
    return lambda command: reduce(lambda done, option: option(done), reversed(options), command)


@contextmanager
def workplace(work: Path | None) -> Iterator[Path]:
    """Return where months and warehouses go: a folder that stays, or a temporary one.

    What failed can be looked at: then the temporary one stays, too.
    """
    folder = work or Path(tempfile.mkdtemp(prefix="ontime-benchmark-"))
    stays = bool(work)
    try:
        yield folder.resolve()
    except click.ClickException:
        stays = True
        raise
    finally:
        if not stays:
            shutil.rmtree(folder)


@click.command(help=__doc__)
@of_months("1,12,60", flights=500_000, results="months.json")
def main(months: list[int], flights: int, seed: int, work: Path | None, out: Path) -> None:
    """Run the command. The text of `--help` is the module's."""
    with workplace(work) as work:
        inputs = put_inputs(work, months, flights, seed)
        courses = []
        for number in months:
            warehouse = work / f"{number}-months"
            try:
                courses.append(Course(warehouse, number, inputs).run())
            except FailedError as error:
                raise click.ClickException(f"{error}; see {warehouse}") from error
            shutil.rmtree(warehouse)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {
            name: metadata.version(name) for name in ("dbt-core", "dbt-duckdb", "dlt", "duckdb")
        },
        "flights": flights,
        "seed": seed,
        "courses": courses,
    }
    write_json(results, "months", out)
    write_results(markdown(results), "months", out)


if __name__ == "__main__":
    main()
