"""Bad use ends with one plain message and the documented exit code; nothing is half-written."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import LOADER, ONE_BY_ONE, Box, closing_table, content, environment, run_load

HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
FILES, ROWS = 4, 5_000


def refusal(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Assert that a command left with one plain message; return it."""
    assert result.returncode == code, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stdout == "" or code == 1
    *before, message = result.stderr.strip().splitlines()
    assert not any(line.startswith("Error") for line in before)
    return message


def without_root_rights() -> tuple[str, ...]:
    """The start of a command line under which permission bits hold for root, too."""
    if os.geteuid():
        return ()
    rights = "-dac_override,-dac_read_search"
    drop = ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")
    if not shutil.which("setpriv") or subprocess.run([*drop, "true"]).returncode:
        pytest.skip("running as root without a working setpriv: permission bits would be ignored")
    return drop


def test_landing_zone_that_is_not_there(box: Box) -> None:
    missing = box.landing / "nowhere"
    for args in (("--landing", missing), ("--landing", missing, missing / "acme")):
        assert str(missing) in refusal(run_load(*args, database=box.database))
    by_environment = run_load(database=box.database, ONTIME_LANDING=str(missing))
    assert str(missing) in refusal(by_environment)
    file = box.write("file.csv", "a\n1\n")
    assert "expected a folder" in refusal(run_load("--landing", file, database=box.database))
    assert not box.database.exists()


def test_nothing_to_load(box: Box) -> None:
    assert "no file to load found" in refusal(box.run())
    box.write("acme/orders/orders.xlsx", b"PK")
    box.write("acme/too_high.csv", "a\n1\n")
    box.write("acme/orders/.arriving.csv", "a\n1\n")
    message = refusal(box.run())
    assert "no file to load found" in message
    assert f"in {box.landing}/<source>/<table>/" in message
    assert not box.database.exists()


@pytest.mark.parametrize("path", ["landing/nowhere", "elsewhere.csv"])
def test_path_that_cannot_be_meant(box: Box, path: str) -> None:
    box.write("acme/orders/orders.csv", "a\n1\n")
    (box.landing.parent / "elsewhere.csv").write_text("a\n1\n")
    message = refusal(box.run(path, cwd=box.landing.parent))
    assert path in message
    assert not box.database.exists()


@pytest.mark.parametrize(
    "folder", ["acme/Orders", "acme/2013", "acme/on-time", "acme/a__b", "a_/b"]
)
def test_folder_that_cannot_name_a_table(box: Box, folder: str) -> None:
    box.write(f"{folder}/orders.csv", "a\n1\n")
    assert "cannot name a table" in refusal(box.run())


def test_unreadable_file_is_refused_and_the_others_are_loaded(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n").chmod(0)
    box.write("acme/orders/b.csv", "a\n2\n")
    (box.landing / "acme/orders/c.csv").symlink_to("nowhere.csv")
    result = box.run(command=(*without_root_rights(), *LOADER))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search(r"Refused: \S+a\.csv: permission denied", result.stderr)
    assert re.search(r"Refused: \S+c\.csv: no such file", result.stderr)
    assert closing_table(result.stdout) == {
        "acme/orders/a.csv": ("0", "0", "refused"),
        "acme/orders/b.csv": ("1", "0", "new"),
        "acme/orders/c.csv": ("0", "0", "refused"),
    }
    box.check_registry()
    assert box.query("select a from raw.acme_orders") == [("2",)]


def test_unreadable_folder_is_not_passed_over(box: Box) -> None:
    box.write("acme/orders/2013/a.csv", "a\n1\n")
    box.write("acme/orders/b.csv", "a\n2\n")
    closed = box.landing / "acme/orders/2013"
    closed.chmod(0)
    try:
        message = refusal(box.run(command=(*without_root_rights(), *LOADER)))
    finally:
        closed.chmod(0o755)
    assert f"{closed}: permission denied" in message
    assert not box.database.exists()


@contextmanager
def held_open(database: Path) -> Iterator[int]:
    """Hold a database open in another process; yield its pid."""
    command = [sys.executable, "-c", HOLD, str(database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
        holder.communicate("\n")


def test_database_held_open(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    with held_open(box.database) as pid:
        for args in ((), ("--dry-run",)):
            message = refusal(box.run(*args))
            assert f"pid {pid}" in message
            assert str(box.database) in message
    assert box.load() == {"acme/orders/a.csv": ("1", "0", "new")}


def test_two_loaders_at_once(box: Box) -> None:
    for number in range(6):
        box.write(f"acme/orders/{number:02}.csv", f"a\n{number}\n")
    command = [*map(str, ONE_BY_ONE), "--landing", str(box.landing)]
    with subprocess.Popen(
        command, env=environment(box.database), stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr.readline().startswith("loaded")
        assert f"pid {first.pid}" in refusal(box.run())
        first.communicate()
        assert first.returncode == 0
    box.check_registry()
    assert box.tables()["acme_orders"] == 6


def test_read_only_database(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    command = (*without_root_rights(), *LOADER)
    folder = box.database.parent / "closed"
    folder.mkdir(mode=0o555)
    closed = Box(box.landing, folder / "new" / "warehouse.duckdb")
    message = refusal(closed.run(command=command, cwd=box.landing))
    assert str(closed.database) in message
    assert "permission denied" in message.lower()
    box.load()
    before = box.database.read_bytes()
    box.write("acme/orders/b.csv", "a\n2\n")
    box.database.chmod(0o444)
    message = refusal(box.run(command=command))
    assert str(box.database) in message
    assert "permission denied" in message.lower()
    assert box.database.read_bytes() == before


def test_database_that_is_none(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    box.database.write_text("not a database, but long enough to look like one" * 100)
    assert str(box.database) in refusal(box.run())
    assert str(box.landing) in refusal(run_load("--landing", box.landing, database=box.landing))


def test_wrong_target(box: Box) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    assert "'nowhere'" in refusal(box.run("--target", "nowhere"))
    assert not box.database.exists()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "cannot be read"),
        ("ontime: [", "is not a dbt profile"),
        ("other: {}", "no 'ontime'"),
        ("ontime: {target: a, outputs: {a: {type: snowflake}}}", "the loader knows duckdb"),
        ("ontime: {target: a, outputs: {a: {type: duckdb}}}", "no 'path'"),
        (
            "ontime: {target: a, outputs: {a: {type: duckdb, path: \"{{ env_var('NEEDED') }}\"}}}",
            "environment variable NEEDED",
        ),
    ],
)
def test_profile_that_cannot_be_used(box: Box, profile: str | None, message: str) -> None:
    box.write("acme/orders/a.csv", "a\n1\n")
    if profile:
        (box.database.parent / "profiles.yml").write_text(profile)
    result = box.run(DBT_PROFILES_DIR=str(box.database.parent))
    assert message in refusal(result)
    assert "profiles.yml" in result.stderr


def test_wrong_command_line(box: Box) -> None:
    for value in ("many", "-1", "0.5", "1 %", "%"):
        assert "--max-rejects" in refusal(box.run("--max-rejects", value), code=2)
    assert "--no-such-option" in refusal(box.run("--no-such-option"), code=2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Box, tuple]:
    """Return the box of a load that nothing disturbed, and what is in it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    for number in range(FILES):
        lines = [f'{number},{row},"text of {row}"' for row in range(ROWS)]
        lines[number] += ",one field too many" * (number > 2)
        box.write(f"acme/orders/{number}.csv", "\n".join(["file,row,text", *lines, ""]))
    box.load(command=ONE_BY_ONE)
    return box, content(box)


def stop(box: Box, how: signal.Signals, after_files: int, seconds: float) -> tuple[int, str]:
    """Start a load; send it a signal some time after it loaded so many files.

    Returns its exit code, negative for a signal, and its messages.
    """
    with subprocess.Popen(
        [*map(str, ONE_BY_ONE), "--landing", str(box.landing)],
        env=environment(box.database),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts commands in the background with Ctrl-C ignored, tests perhaps, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while after_files and (line := process.stderr.readline()):
            after_files -= line.startswith("loaded")
        time.sleep(seconds)
        process.send_signal(how)
        _, messages = process.communicate(timeout=60)
    return process.returncode, messages


def moments(count: int, seed: str) -> list[tuple[int, float]]:
    """Return moments all over a load, the same in every test run: files loaded, seconds after."""
    chance = random.Random(seed)
    return [(after, chance.uniform(0, 0.1 if after else 0.8)) for after in range(count)]


def test_interrupted_load_is_completed_by_the_next(
    box: Box, undisturbed: tuple[Box, tuple]
) -> None:
    calm, expected = undisturbed
    box.landing = calm.landing
    for after_files, seconds in [(0, 0.2), *moments(FILES - 1, "interrupt")]:
        box.database.unlink(missing_ok=True)
        code, messages = stop(box, signal.SIGINT, after_files, seconds)
        assert code == 130, messages
        assert "Traceback" not in messages
        assert "Error" not in messages
        assert "Interrupted" in messages or not messages
        assert not box.workspace.exists()
        if after_files:
            box.check_registry()
        box.load()
        assert content(box) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here ({error}): needs root and mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(box: Box, small_disk: Path) -> None:
    """Whenever the disk is full, nothing is half-written, and the next run completes."""
    box.database = small_disk / "warehouse.duckdb"
    box.write("acme/orders/small.csv", "id,text\n1,a\n")
    box.load()
    before = box.tables()
    chance = random.Random("disk")
    rows = [(f"{row}", chance.randbytes(60).hex()) for row in range(40_000)]
    box.write("acme/orders/large.csv", "\n".join(["id,text", *map(",".join, rows), ""]))
    free = shutil.disk_usage(small_disk).free
    # The space gives out as the load begins, as it writes what it has read, and as it commits.
    for share_left in (0, 0.1, 0.4):
        filler = small_disk / "filler"
        filler.write_bytes(bytes(int(free * (1 - share_left))))
        result = box.run()
        filler.unlink()
        assert f"the disk of {box.database} is full" in refusal(result)
        assert not box.workspace.exists()
        assert box.tables() == before
        box.check_registry()
    assert box.load()["acme/orders/large.csv"] == ("40,000", "0", "new")
    assert box.query("select id, text from raw.acme_orders where id <> '1' or text <> 'a'") == rows
    box.check_registry()
