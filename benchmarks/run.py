"""Measure `python ingest/load.py` against the physical limit and against its peers.

\b
    python benchmarks/run.py                          everything: an hour or two
    python benchmarks/run.py --sizes 1,10 --no-peers  the loader and the limit, smaller files

Writes results.json, the tables in README.md and growth.svg.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import click
from measure import (
    BENCHMARKS,
    PROJECT,
    FailedError,
    Usage,
    integers,
    last_error,
    machine,
    measure,
    write_json,
    write_results,
)
from report import LIMIT, LOADER, markdown

# This process stays small and imports no library that it measures: the peak memory that the
# system reports for a child is at least what its parent held when it started it.
PEERS = sorted((BENCHMARKS / "peers").glob("*.py"))


@dataclass(frozen=True)
class Contestant:
    """One way to get a CSV file into a DuckDB file, as a whole process."""

    name: str
    about: str
    command: Callable[[Path, Path], list[str | Path]]

    def run(self, csv: Path, database: Path) -> Usage:
        """Load the file into a database that does not exist yet."""
        return measure(self.command(csv, database), database)


def own_contestants() -> list[Contestant]:
    """Return the loader and the limit, which run in this Python's environment."""
    loader = PROJECT / "ingest" / "load.py"
    limit = BENCHMARKS / "limit.py"
    return [
        Contestant(
            LOADER,
            "`python ingest/load.py`",
            lambda csv, _: [sys.executable, loader, "--landing", csv.parents[2]],
        ),
        Contestant(LIMIT, about(limit), lambda *paths: [sys.executable, limit, *paths]),
    ]


def peer(script: Path, python: Path) -> Contestant:
    """Return the contestant that a script is, to be run by an environment's Python."""
    return Contestant(script.stem, about(script), lambda *paths: [python, script, *paths])


def about(script: Path) -> str:
    """Return the docstring of a script."""
    return ast.get_docstring(ast.parse(script.read_text()))


def dependencies(script: Path) -> list[str]:
    """Return the packages that a script asks for in its inline metadata (PEP 723)."""
    block = re.search(r"^# /// script\n(.*?)^# ///$", script.read_text(), re.DOTALL | re.MULTILINE)
    return tomllib.loads(re.sub(r"^# ?", "", block[1], flags=re.MULTILINE))["dependencies"]


def set_up(script: Path, work: Path) -> Path:
    """Make an environment for a script, unless it is there; return its Python. Raises FailedError.

    The list of what is in it is written last: an environment without one is made anew.
    """
    folder = work / "environments" / script.stem
    python = folder / "bin" / "python"
    if not versions_file(script, work).exists():
        click.echo(f"setting up {script.stem}", err=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        install = [*pip, "install", "--quiet", "--compile", *dependencies(script)]
        result = subprocess.run(install, capture_output=True, text=True)
        if result.returncode:
            raise FailedError(last_error(result.stderr))
        packages = subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True)
        versions_file(script, work).write_bytes(packages.stdout)
    return python


def versions_file(script: Path, work: Path) -> Path:
    """Return where set_up() leaves the list of the packages that it installed."""
    return work / "environments" / script.stem / "packages.json"


def peer_versions(script: Path, work: Path) -> dict[str, str]:
    """Return the versions of what a script asks for."""
    packages = json.loads(versions_file(script, work).read_text())
    installed = {each["name"].lower().replace("_", "-"): each["version"] for each in packages}
    names = [re.match(r"[\w-]+", dependency)[0] for dependency in dependencies(script)]
    return {name: installed[name] for name in names}


def landed(work: Path, zone: str, file: str = "flights.csv") -> Path:
    """Return the place of an input: a landing zone with one folder, so that the loader finds it."""
    path = work / "inputs" / zone / "bench" / "flights" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def put_flights(work: Path) -> Path:
    """Put the flights that come with the project into the work folder."""
    sys.path.append(str(PROJECT))
    from ingest.landing import SAMPLE, put_sample

    sample = work / "inputs" / "sample"
    if not sample.exists():
        put_sample(sample)
    return sample / SAMPLE / "flights" / "flights.csv"


def put_input(source: Path, size: int, work: Path) -> Path:
    """Write the source's rows `size` times under one header."""
    path = landed(work, f"{size}x")
    with source.open("rb") as rows, path.open("wb") as out:
        out.write(rows.readline())
        start = rows.tell()
        for _ in range(size):
            rows.seek(start)
            shutil.copyfileobj(rows, out, 1 << 20)
    return path


def put_small_files(source: Path, files: int, work: Path) -> Path:
    """Cut the source into `files` files, each with its header; return their landing zone."""
    header, *lines = source.read_bytes().splitlines(keepends=True)
    for number in range(files):
        part = lines[number * len(lines) // files : (number + 1) * len(lines) // files]
        landed(work, "small", f"{number:05}.csv").write_bytes(header + b"".join(part))
    return work / "inputs" / "small"


@contextmanager
def fresh_database(work: Path) -> Iterator[Path]:
    """Yield the path of a database to be made, in a folder of its own that is then removed."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        yield Path(folder, "bench.duckdb")


def survival(contestant: Contestant, csv: Path, work: Path) -> dict:
    """Load a file, unmeasured, and compare what came of its values. Raises FailedError."""
    with fresh_database(work) as database:
        contestant.run(csv, database)
        compare = [sys.executable, BENCHMARKS / "survival.py", csv, database]
        result = subprocess.run(compare, capture_output=True, text=True)
        if result.returncode:
            raise FailedError(last_error(result.stderr))
        return json.loads(result.stdout)


def measure_unchanged(source: Path, files: int, runs: int, work: Path) -> dict:
    """Load many small files, then measure runs that find nothing new."""
    loader = own_contestants()[0]
    zone = put_small_files(source, files, work)
    landing = zone / "bench"
    with fresh_database(work) as database:
        command = loader.command(landing / "flights" / "00000.csv", database)
        first, *again = (measure(command, database).seconds for _ in range(runs + 1))
        return {
            "files": files,
            "bytes": sum(file.stat().st_size for file in landing.rglob("*.csv")),
            "first_seconds": first,
            "seconds": again,
            "bytes_read": bytes_read(command, database, landing),
        }


def bytes_read(command: list[str | Path], database: Path, landing: Path) -> dict[str, int] | None:
    """Run a command once more under strace; return what it reads of the files and the database.

    Returns None where strace is not installed or may not look on.
    """
    if not shutil.which("strace"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        calls = "trace=read,pread64,readv,preadv"
        # A file per thread (-ff): no call's line is broken by another's. -y names the files.
        strace = ["strace", "-ff", "-qq", "-y", "-e", calls, "-o", f"{folder}/thread"]
        try:
            measure([*strace, *command], database)
        except FailedError:
            return None
        sizes: Counter[str] = Counter()
        for trace in Path(folder).iterdir():
            for line in trace.read_text(errors="replace").splitlines():
                call = re.match(r"\w+\(\d+<(.+?)>,.* = (\d+)$", line)
                if call:
                    sizes[call[1]] += int(call[2])
    return {
        "landing": sum(size for path, size in sizes.items() if path.startswith(f"{landing}/")),
        "warehouse": sum(size for path, size in sizes.items() if path.startswith(str(database))),
    }


@dataclass
class Entry:
    """Who takes part; `failures` has the last word of those that failed, by name and task."""

    contestants: list[Contestant]
    described: dict[str, str]
    versions: dict[str, dict[str, str]]
    failures: dict[str, dict[str, str]]

    def note(self, contestant: str, task: str, error: FailedError) -> None:
        """Keep a failure: it is listed, never left out."""
        click.echo(f"failed: {contestant}, {task}: {error}", err=True)
        self.failures.setdefault(contestant, {})[task] = str(error)


def enter(only: tuple[str, ...], work: Path, *, with_peers: bool) -> Entry:
    """Set up all contestants, or those that are named and the limit."""
    own = [each for each in own_contestants() if not only or each.name in (LIMIT, *only)]
    entry = Entry(own, {each.name: each.about for each in own}, {}, {})
    for each in own:
        libraries = ("duckdb",) if each.name == LIMIT else ("dlt", "duckdb", "pyarrow")
        entry.versions[each.name] = {name: metadata.version(name) for name in libraries}
    for script in PEERS:
        if script.stem in only or (with_peers and not only):
            entry.described[script.stem] = about(script)
            try:
                entry.contestants.append(peer(script, set_up(script, work)))
                entry.versions[script.stem] = peer_versions(script, work)
            except FailedError as error:
                entry.note(script.stem, "install", error)
    return entry


def compare(entry: Entry, source: Path, work: Path) -> dict[str, dict]:
    """Let everybody load the input and tricky.csv, unmeasured; return what came of the values.

    This comes first: libraries are then compiled, and in the file cache, when it counts.
    """
    tricky = landed(work, "tricky")
    shutil.copyfile(BENCHMARKS / "tricky.csv", tricky)
    once = put_input(source, 1, work)
    survived: dict[str, dict] = {name: {} for name in entry.described}
    for contestant in entry.contestants:
        for task, csv in (("tricky.csv", tricky), ("flights", once)):
            click.echo(f"comparing {contestant.name}: {task}", err=True)
            try:
                survived[contestant.name][task] = survival(contestant, csv, work)
            except FailedError as error:
                entry.note(contestant.name, task, error)
    return survived


def race(
    entry: Entry, source: Path, sizes: list[int], peer_sizes: list[int], runs: int, work: Path
) -> list[dict]:
    """Measure everybody in rounds, so that a ratio is one of the same minutes."""
    measured = []
    for size in sizes:
        csv = put_input(source, size, work)
        runners = [
            contestant
            for contestant in entry.contestants
            if contestant.name in (LOADER, LIMIT) or size in peer_sizes
        ]
        for number in range(runs):
            for contestant in runners:
                task = f"{size}x"
                if entry.failures.get(contestant.name, {}).keys() & {"flights", task}:
                    continue
                with fresh_database(work) as database:
                    try:
                        usage = contestant.run(csv, database)
                    except FailedError as error:
                        entry.note(contestant.name, task, error)
                        continue
                run = {"name": contestant.name, "size": size, "round": number} | vars(usage)
                measured.append(run)
                click.echo(
                    f"{task} {number + 1}: {contestant.name} {usage.seconds:.2f} s", err=True
                )
        csv.unlink()
    return measured


@click.command(help=__doc__)
@click.option(
    "--sizes", default="1,10,30,90", show_default=True, callback=integers, help="Times the input."
)
@click.option("--runs", default=5, show_default=True, help="Runs of each contestant at each size.")
@click.option("--peers/--no-peers", default=True, help="Measure the peers too.  [default: peers]")
@click.option(
    "--peer-sizes",
    default="1",
    show_default=True,
    callback=integers,
    help="The sizes at which peers run: some take minutes at the smallest.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([LOADER, *(path.stem for path in PEERS)]),
    help="Measure only this contestant, and the limit; may be repeated.",
)
@click.option("--files", default=1000, show_default=True, help="Small files of which none is new.")
@click.option(
    "--input",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The CSV file.  [default: the flights that come with the project]",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where inputs, environments and databases go, and stay.  [default: a temporary folder]",
)
@click.option(
    "--out",
    default=BENCHMARKS,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results.json, README.md and growth.svg go.  [default: benchmarks/]",
)
@click.option("--plot/--no-plot", default=True, help="Draw growth.svg.  [default: plot]")
def main(
    sizes: list[int],
    runs: int,
    peers: bool,
    peer_sizes: list[int],
    only: tuple[str, ...],
    files: int,
    source: Path | None,
    work: Path | None,
    out: Path,
    plot: bool,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    with nullcontext(work) if work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        source = source or put_flights(work)
        entry = enter(only, work, with_peers=peers)
        survived = compare(entry, source, work)
        results = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "input": {
                "rows": survived["limit"]["flights"]["rows"],
                "bytes": source.stat().st_size,
            },
            "contestants": entry.described,
            "versions": entry.versions,
            "survival": survived,
            "runs": race(entry, source, sizes, peer_sizes, runs, work),
            "unchanged": measure_unchanged(source, files, runs, work) if files else {},
            "failures": entry.failures,
        }
        write_json(results, "results", out)
        if plot:
            script = BENCHMARKS / "plot.py"
            picture = [set_up(script, work), script, out / "results.json", out / "growth.svg"]
            subprocess.run(picture, check=True)
    write_results(markdown(results, with_plot=plot), "results", out)


if __name__ == "__main__":
    main()
