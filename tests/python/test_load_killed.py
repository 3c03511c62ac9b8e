"""Killed at any moment and run again, a load ends as if nothing had happened."""

import gzip
import random
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from .conftest import ONE_BY_ONE, Box, content, environment

ORDERS = "acme/orders/"
ROWS = 4_000


def csv(number: int, *, extra: str = "") -> str:
    """A file's text; every third has a broken record, and `extra` is one more column."""
    lines = [f'{number},{row},"text of {row}"' + ",x" * bool(extra) for row in range(ROWS)]
    if number % 3 == 0:
        lines[number] += ",one field too many"
    return "\n".join([f"file,row,text{extra}", *lines, ""])


class Calm:
    """Files of every kind over an older state of the warehouse, and what must come of them."""

    def __init__(self, box: Box):
        self.box = box
        for number in range(3):
            box.write(f"{ORDERS}{number}.csv", csv(number))
        box.load()
        self.save()
        # One changes, two swap, one gets a copy, and new ones come, with more columns, too.
        box.write(f"{ORDERS}0.csv", csv(10))
        box.write(f"{ORDERS}1.csv", csv(2))
        box.write(f"{ORDERS}2.csv", csv(1))
        box.write(f"{ORDERS}copy.csv", csv(2))
        box.write(f"{ORDERS}5.csv", csv(5, extra=",more"))
        box.write(f"{ORDERS}6.csv", csv(6))
        started = time.monotonic()
        box.load(command=ONE_BY_ONE)
        self.seconds = time.monotonic() - started
        self.expected = content(box)

    def save(self) -> None:
        """Keep the warehouse as it is before the load."""
        raise NotImplementedError

    def again(self) -> None:
        """Put the warehouse back to what it was before the load."""
        raise NotImplementedError

    def start(self, command: tuple[object, ...] = ONE_BY_ONE) -> subprocess.Popen[str]:
        """Start the load."""
        return start(self.box, command)


def start(box: Box, command: tuple[object, ...] = ONE_BY_ONE) -> subprocess.Popen[str]:
    """Start a load of a box's files."""
    return subprocess.Popen(
        [*map(str, command), "--landing", str(box.landing)],
        env=environment(box.database, **box.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, Path, tuple, float]:
    """Load files of every kind over an older state of the landing zone, undisturbed.

    Returns the box, the warehouse as it was before, what is in it after, and the load's seconds.
    """
    folder = tmp_path_factory.mktemp("calm")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    for number in range(4):
        box.write(f"{ORDERS}{number}.csv", csv(number))
    box.load()
    before = folder / "before.duckdb"
    shutil.copyfile(box.database, before)
    # One changes, two swap, one gets a copy, and new ones come in every shape.
    box.write(f"{ORDERS}0.csv", csv(10))
    box.write(f"{ORDERS}1.csv", csv(2))
    box.write(f"{ORDERS}2.csv", csv(1))
    box.write(f"{ORDERS}copy.csv", csv(3))
    box.write(f"{ORDERS}5.csv", csv(5, extra=",more"))
    box.write(f"{ORDERS}6.csv.gz", gzip.compress(csv(6).encode()))
    with zipfile.ZipFile(box.landing / ORDERS / "7.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (7, 8, 9):
            archive.writestr(f"{number}.csv", csv(number))
        archive.writestr("readme.txt", "no data")
    started = time.monotonic()
    box.load(command=ONE_BY_ONE)
    return box, before, content(box), time.monotonic() - started


def kill(box: Box, seconds: float) -> bool:
    """Start a load and kill it after some time; tell whether it was still running."""
    with start(box) as process:
        time.sleep(seconds)
        process.kill()
        process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("then", "kills"),
    [("nothing more", 26), ("the working folder is lost", 8), ("a backup is restored", 8)],
)
def test_killed_and_run_again(
    then: str, kills: int, box: Box, calm: tuple[Box, Path, tuple, float]
) -> None:
    """At seeded moments all over the load; and what a reader sees in between is whole files."""
    undisturbed, before, expected, duration = calm
    box.landing = undisturbed.landing
    chance = random.Random(then)
    hits = 0
    for turn in range(kills):
        moment = duration * (turn + chance.random()) / kills
        box.database.with_name(f"{box.database.name}.wal").unlink(missing_ok=True)
        shutil.copyfile(before, box.database)
        hits += kill(box, moment)
        box.check_registry()
        if then == "the working folder is lost":
            shutil.rmtree(box.workspace, ignore_errors=True)
        elif then == "a backup is restored":
            box.database.with_name(f"{box.database.name}.wal").unlink(missing_ok=True)
            shutil.copyfile(before, box.database)
        box.load()
        assert content(box) == expected, f"killed after {moment:.3f} s"
        assert not box.workspace.exists()
    assert hits >= kills // 2


def test_killed_twice_in_a_first_load(
    box: Box, calm: tuple[Box, Path, tuple, float], tmp_path: Path
) -> None:
    """With no warehouse before, and with the next load killed as well."""
    undisturbed, _, _, duration = calm
    box.landing = undisturbed.landing
    fresh = Box(box.landing, tmp_path / "fresh" / "warehouse.duckdb")
    fresh.database.parent.mkdir()
    fresh.load(command=ONE_BY_ONE)
    chance = random.Random("twice")
    for _ in range(5):
        box.database.unlink(missing_ok=True)
        kill(box, chance.uniform(0.3, 1) * duration)
        kill(box, chance.uniform(0.3, 1) * duration)
        box.load()
        assert content(box) == content(fresh)
