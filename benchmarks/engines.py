"""Measure one project on each engine: load and build of many months, one more, nothing.

\b
    python benchmarks/engines.py                                1, 10 and 60 months: about an hour
    python benchmarks/engines.py --months 1,3 --flights 5000 --engines duckdb,postgres

PostgreSQL and Spark are the servers of the tests, on this machine, started for each number of
months: the environment needs the extras `test` and, for Spark, `spark`. Writes engines.json and
its tables in README.md.
"""

import shutil
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import click
import psutil
from measure import PROJECT, FailedError, machine, write_json, write_results
from months import (
    ADD,
    FILL,
    NOTHING,
    STEPS,
    Course,
    Inputs,
    in_words,
    of_months,
    put_inputs,
    seconds,
    workplace,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from report import MIB, setting, table

sys.path.append(str(PROJECT))
from tests.python.servers import PostgresServer, SparkCluster

DUCKDB, POSTGRES, SPARK = "duckdb", "postgres", "spark"
NAMES = {DUCKDB: "DuckDB", POSTGRES: "PostgreSQL", SPARK: "Spark"}
EXTRAS = ("", "postgres", "spark", "s3", "aws")
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Site:
    """Where a warehouse is: how commands find it, the server's processes, and its size in bytes."""

    variables: dict[str, str]
    processes: Callable[[], list[int]]
    size: Callable[[], int]


@contextmanager
def duckdb_site(folder: Path) -> Iterator[Site]:
    """A file, and no server."""
    yield Site({}, list, lambda: size_below(folder / "warehouse.duckdb"))


@contextmanager
def postgres_site(folder: Path) -> Iterator[Site]:
    """A server with PostgreSQL's own settings, but for those that a power cut would need."""
    server = PostgresServer()
    try:
        server.execute("create database ontime")
        variables = {"DBT_TARGET": "postgres"} | server.variables("ontime")
        [[number]] = server.execute("select oid from pg_database where datname = 'ontime'")
        yield Site(variables, server.processes, lambda: size_below(server.data / f"base/{number}"))
    finally:
        server.remove()


@contextmanager
def spark_site(folder: Path) -> Iterator[Site]:
    """A standalone cluster as deploy/spark/cluster.py starts it, and a lake."""
    cluster, lake = SparkCluster(), folder / "lake"
    try:
        variables = {
            "DBT_TARGET": "spark",
            "SPARK_REMOTE": cluster.remote,
            "ONTIME_LAKE": str(lake),
            "PYTHONWARNINGS": "ignore::UserWarning:pyspark.sql.connect.conf",
        }
        tables = cluster.folder / "tables"
        yield Site(variables, cluster.processes, lambda: size_below(lake) + size_below(tables))
    finally:
        cluster.remove()


SITES = {DUCKDB: duckdb_site, POSTGRES: postgres_site, SPARK: spark_site}


def size_below(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


class Memory:
    """The most memory that commands and server took together while a block ran, in bytes.

    Shared memory counts once (the proportional set size). It is looked at twice a second.
    """

    def __init__(self, processes: Callable[[], list[int]]):
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> "Memory":
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(proportional_bytes, self._alive())))

    def _alive(self) -> Iterator[psutil.Process]:
        yield from psutil.Process().children(recursive=True)
        for pid in self._processes():
            with suppress(psutil.Error):
                server = psutil.Process(pid)
                yield from (server, *server.children(recursive=True))


def proportional_bytes(process: psutil.Process) -> int:
    """Return the memory of a process, with its share of what it shares; 0 if it ended."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


class EngineCourse(Course):
    """The course of months.py on one engine, with the memory of the server, and no correction."""

    def __init__(self, engine: str, site: Site, folder: Path, months: int, inputs: Inputs):
        super().__init__(folder, months, inputs, **site.variables)
        self.engine = engine
        self.site = site

    def run(self) -> dict:
        """Take all steps; return what each command cost, and the sizes in bytes."""
        self.take_steps(FILL, ADD, NOTHING)
        return {
            "engine": self.engine,
            "months": self.months,
            "flights": self.flights,
            "csv_bytes": self.csv_bytes,
            "bytes": self.site.size(),
            "measured": self.measured,
        }

    def measure(self, step: str, command: str, arguments: list[str | Path]) -> None:
        """Take note of what a command costs, and of the memory of all. Raises FailedError."""
        with Memory(self.site.processes) as memory:
            super().measure(step, command, arguments)
        self.measured[-1]["all_peak_bytes"] = memory.peak


def installed_bytes(extra: str) -> int:
    """Return the size of all packages that the project needs, with an extra or, blank, without."""
    paths = {
        str(file.locate())
        for name in packages(Requirement(f"ontime[{extra}]"))
        for file in metadata.files(name) or []
    }
    return sum(size_below(Path(path)) for path in paths)


def packages(wanted: Requirement) -> set[str]:
    """Return the names of all packages that this project needs, with the extras of a requirement.

    What its settings leave out of the locks is left out, but for Spark, which needs it.
    """
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    left_out = (
        settings["tool"]["uv"]["exclude-dependencies"] if "spark" not in wanted.extras else ()
    )
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [wanted]
    while waiting:
        requirement = waiting.pop()
        asked = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if asked in seen or requirement.name in left_out:
            continue
        seen.add(asked)
        if requirement.name == wanted.name:
            waiting += map(Requirement, settings["project"]["dependencies"])
            waiting += (Requirement(text) for extra in requirement.extras for text in extras[extra])
        else:
            waiting += needed(requirement)
    return {name for name, _ in seen} - {wanted.name}


def needed(requirement: Requirement) -> list[Requirement]:
    """Return what one package needs itself, on this machine, as its own record says."""
    return [
        each
        for each in map(Requirement, metadata.requires(requirement.name) or [])
        if not each.marker
        or any(each.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras})
    ]


def markdown(results: dict) -> str:
    """Return everything that the figures say."""
    courses = results["courses"]
    parts = [setting(results), f"{results['flights']:,} flights a month."]
    for months in sorted({course["months"] for course in courses}):
        same = [course for course in courses if course["months"] == months]
        parts += [
            f"### Engines, {in_words(months)}: {same[0]['flights']:,} flights at last",
            costs(same),
        ]
    parts += ["### Growth", growth(courses), "### Installed", installed(results["installed_bytes"])]
    if results["failures"]:
        failed = [(NAMES[each["engine"]], each["why"]) for each in results["failures"]]
        parts += ["### Failed", table(("engine", "why"), failed)]
    return "\n\n".join(parts)


def costs(courses: list[dict]) -> str:
    """Return the table of what each step cost on each engine, all with as many months."""
    first = courses[0]
    rows = []
    for step in dict.fromkeys(each["step"] for each in first["measured"]):
        for course in courses:
            load, build = (seconds(course, step, command) for command in ("load", "build"))
            both = seconds(first, step, "load", "build")
            rows.append(
                (
                    STEPS[step],
                    NAMES[course["engine"]],
                    f"{load:.1f}",
                    f"{build:.1f}",
                    f"{(load + build) / both:.2f}",
                    f"{peak(course, step) / MIB:,.0f}",
                )
            )
    return table(
        ("step", "engine", "load, s", "build, s", f"times {NAMES[first['engine']]}", "peak MiB"),
        rows,
    )


def peak(course: dict, step: str) -> int:
    """Return the most memory, in bytes, that a step took with the server."""
    return max(each["all_peak_bytes"] for each in course["measured"] if each["step"] == step)


def growth(courses: list[dict]) -> str:
    """Return the table of what a million flights more cost, from the smallest to the largest."""
    rows = []
    for engine in dict.fromkeys(course["engine"] for course in courses):
        own = sorted((c for c in courses if c["engine"] == engine), key=lambda c: c["months"])
        figures = (
            [seconds(course, FILL, "load", "build") for course in own],
            [peak(course, FILL) / MIB for course in own],
            [peak(course, ADD) / MIB for course in own],
            [course["bytes"] / 1e6 for course in own],
        )
        millions = (own[-1]["flights"] - own[0]["flights"]) / 1e6
        rows.append(
            (
                NAMES[engine],
                *(f"{(of[-1] - of[0]) / millions:,.1f}" if millions else "-" for of in figures),
                f"{own[-1]['bytes'] / own[-1]['csv_bytes']:.2f}",
            )
        )
    return table(
        (
            "a million flights more",
            "seconds to fill",
            "peak MiB to fill",
            "peak MiB for one month more",
            "MB on disk",
            "size, times that of the CSV",
        ),
        rows,
    )


def installed(sizes: dict[str, int]) -> str:
    """Return the table of what is installed with each extra."""
    core = sizes[""]
    return table(
        ("install", "MB", "more than the core, MB"),
        [
            (f"ontime[{extra}]" if extra else "ontime", f"{size / 1e6:,.0f}",
             f"{(size - core) / 1e6:,.0f}" if extra else "-")
            for extra, size in sizes.items()
        ],
    )  # fmt: skip


@click.command(help=__doc__)
@of_months("1,10,60", flights=20_000, results="engines.json")
@click.option(
    "--engines",
    default=",".join(SITES),
    show_default=True,
    callback=lambda _context, _parameter, text: chosen(text),
    help="Which, by their names; ratios are to the first.",
)
def main(
    months: list[int], flights: int, seed: int, engines: list[str], work: Path | None, out: Path
) -> None:
    """Run the command. The text of `--help` is the module's."""
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "flights": flights,
        "seed": seed,
        "installed_bytes": sizes_installed(),
        "courses": [],
        "failures": [],
    }
    with workplace(work) as work:
        inputs = put_inputs(work, months, flights, seed)
        # Side by side in time: what they are compared in are the same minutes.
        for number in months:
            for engine in engines:
                warehouse = work / f"{number}-months-{engine}"
                click.echo(f"{NAMES[engine]}, {in_words(number)}", err=True)
                try:
                    with SITES[engine](warehouse) as site:
                        course = EngineCourse(engine, site, warehouse, number, inputs)
                        results["courses"].append(course.run())
                    shutil.rmtree(warehouse)
                except FailedError as error:
                    click.echo(f"Error: {error}", err=True)
                    results["failures"].append({"engine": engine, "why": str(error)})
        write_json(results, "engines", out)
        write_results(markdown(results), "engines", out)
        if results["failures"]:
            raise click.ClickException(f"not all could be measured: see the folders in {work}")


def chosen(text: str) -> list[str]:
    """Parse the names of engines."""
    names = text.split(",")
    if unknown := [name for name in names if name not in SITES]:
        raise click.BadParameter(f"{unknown[0]!r}: expected some of {', '.join(SITES)}")
    return list(dict.fromkeys(names))


def sizes_installed() -> dict[str, int]:
    """Return the bytes of the core and of each extra that is installed, the core's with it."""
    sizes = {}
    for extra in EXTRAS:
        with suppress(metadata.PackageNotFoundError):
            sizes[extra] = installed_bytes(extra)
    return sizes


if __name__ == "__main__":
    main()
