"""Compacting keeps everything but the size of the file, and never leaves it in pieces."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from ingest.compact import CATALOG, OF_THE_FILE, Space, check_disk, locked, stamp_of
from ingest.errors import LoadError

from .conftest import PROJECT, Box, environment, run_dbt
from .test_load_bad_use import held_open, refusal, without_root_rights

COMPACT = (sys.executable, PROJECT / "ingest" / "compact.py")


def run(
    database: Path | str,
    *args: object,
    command: tuple[object, ...] = COMPACT,
    cwd: Path | None = None,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command), *map(str, args)],
        cwd=cwd,
        env=environment(database, **extra),
        capture_output=True,
        text=True,
        timeout=120,
    )


def everything(database: Path, *, views: bool = False) -> dict:
    """What DuckDB lists of a file, and a checksum of each table (in order), and of each view."""
    with duckdb.connect(str(database), read_only=True) as warehouse:
        found = {
            function: warehouse.sql(
                f"select columns(lambda name: not regexp_matches(name, '{OF_THE_FILE}'))"
                f" from {function}() where database_name = current_database() order by all"
            ).fetchall()
            for function in CATALOG
        }
        relations = warehouse.sql(
            "select schema_name, table_name, true from duckdb_tables() union all"
            " select schema_name, view_name, false from duckdb_views() where not internal and $1",
            params=[views],
        ).fetchall()
        for schema, name, has_order in relations:
            position = "row_number() over ()" if has_order else "0"
            found[schema, name] = warehouse.sql(
                "select count(*), sum(hash(*columns(*))::hugeint)"
                f' from (select *, {position} as position from {schema}."{name}")'
            ).fetchone()
    return found


def left_beside(database: Path) -> list[str]:
    return [path.name for path in database.parent.iterdir() if path.name.startswith(database.name)]


@pytest.fixture
def churned(built: Path, tmp_path: Path, landing: Path) -> Box:
    """A built warehouse in which all rows were loaded anew, in place of the old ones."""
    shutil.copytree(landing, tmp_path / "landing")
    box = Box(tmp_path / "landing", tmp_path / "warehouse.duckdb")
    shutil.copyfile(built, box.database)
    box.load("--full-refresh")
    return box


def test_the_same_before_and_after_and_smaller(churned: Box) -> None:
    database = churned.database
    database.chmod(0o640)
    if not os.geteuid():
        os.chown(database, 12345, 12345)
    before, old = everything(database, views=True), database.stat()
    said = run(database, "--dry-run").stdout
    tables = len(churned.query("select 1 from duckdb_tables()"))
    assert f"{tables} tables with" in said
    free = float(re.search(r"give back ([\d.,]+) MB", said)[1])
    assert database.stat() == old
    result = run(database)
    assert result.returncode == 0, result.stderr
    after = database.stat()
    assert re.search(r": [\d.]+ MB before, [\d.]+ MB after; [\d.]+ s$", result.stdout.strip())
    assert everything(database, views=True) == before
    # How much is free hangs on which blocks DuckDB's threads took again.
    assert old.st_size - after.st_size > 0.9 * free * 1e6 > 1e6
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns) == (
        old.st_mode,
        old.st_uid,
        old.st_gid,
        old.st_mtime_ns,
    )
    assert after.st_ino != old.st_ino
    assert left_beside(database) == [database.name]


def test_loads_and_builds_go_on_after(churned: Box) -> None:
    assert run(churned.database).returncode == 0
    size = churned.database.stat().st_size
    assert {status for *_, status in churned.load().values()} == {"unchanged"}
    assert churned.database.stat().st_size == size
    churned.write("acme/orders/a.csv", "id\n1\n")
    assert churned.load("--verify")["acme/orders/a.csv"] == ("1", "0", "new")
    churned.check_registry()
    result = run_dbt("build", "--exclude", "resource_type:unit_test", database=churned.database)
    assert result.returncode == 0, result.stdout


def test_nothing_to_gain(box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    for _ in range(3):
        last = run(box.database)
        assert last.returncode == 0, last.stderr
    assert "left as it was" in last.stdout
    assert left_beside(box.database) == [box.database.name]
    assert box.tables()["acme_orders"] == 1


def test_whatever_else_a_file_may_hold(tmp_path: Path) -> None:
    """Also a view without its table, quoted names, and a name that the copy might want."""
    database = tmp_path / "it's compacted.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("""
            create schema "a ""b"; create sequence numbers start 5; create type mood as enum ('x');
            create macro next(x) as x + 1; create macro one() as table select 1 as one;
            create table "a ""b"."select" (
                i int primary key, "%s" mood default 'x', j int default nextval('numbers'),
                g int generated always as (i * 2), check (i < 1000000)
            );
            insert into "a ""b"."select" (i) from range(300000);
            create table later as select i, j from "a ""b"."select" order by hash(i);
            create index by_i on later (i);
            delete from later where i % 3 > 0;
            create view seen as select next(i) as n from "a ""b"."select";
            comment on view seen is 'it''s seen'; comment on column seen.n is 'n';
            comment on table later is 'l'; comment on column later.i is 'i';
            create table gone (i int); create view stale as select * from gone; drop table gone;
            create table filler as from range(3000000); drop table filler;
        """)
    with duckdb.connect(str(database)) as connection:
        listed = "select columns(lambda name: not regexp_matches(name, '" + OF_THE_FILE + "'))"
        select = [f"{listed} from {each}() where not starts_with(database_name, 'system')"
                  " and database_name <> 'temp' order by all" for each in CATALOG]  # fmt: skip
        before = [connection.sql(each).fetchall() for each in select]
        order = connection.sql("select i from later").fetchall()
        connection.execute("checkpoint")
    size = database.stat().st_size
    result = run(database)
    assert result.returncode == 0, result.stderr
    assert database.stat().st_size < size
    with duckdb.connect(str(database)) as connection:
        assert [connection.sql(each).fetchall() for each in select] == before
        assert connection.sql("select i from later").fetchall() == order
        assert connection.sql("select max(n) from seen").fetchone() == (300000,)
        assert connection.sql("select nextval('numbers')").fetchone() == (300005,)


def test_what_is_in_the_wal_is_kept(churned: Box) -> None:
    write = (
        "import duckdb, os, sys; held = duckdb.connect(sys.argv[1]);"
        "held.execute('create table raw.extra as select 7 as seven'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", write, churned.database], check=True)
    wal = churned.database.with_name(f"{churned.database.name}.wal")
    assert wal.exists()
    assert str(wal) in run(churned.database, "--dry-run").stdout
    assert wal.exists()
    assert run(churned.database).returncode == 0
    assert not wal.exists()
    assert churned.query("from raw.extra") == [(7,)]


# The command, ended as by a kill at the nth time that it makes sure of what is on the disk:
# first before the swap, then after it.
KILLED = (
    "import os, sys; sys.path[0] = {!r}; from ingest import compact; sync = compact.sync\n"
    "def die(path, left=[{}]):\n"
    "    left[0] -= 1\n"
    "    os._exit(9) if left[0] == 0 else sync(path)\n"
    "compact.sync = die; compact.main()"
)


@pytest.mark.parametrize("step", [1, 2])
def test_killed_at_the_swap(step: int, churned: Box) -> None:
    before, size = everything(churned.database), churned.database.stat().st_size
    killed = (sys.executable, "-c", KILLED.format(str(PROJECT), step))
    assert run(churned.database, command=killed).returncode == 9
    assert (churned.database.stat().st_size < size) == (step == 2)
    assert len(left_beside(churned.database)) == 2
    assert everything(churned.database) == before
    assert run(churned.database).returncode == 0
    assert everything(churned.database) == before
    assert left_beside(churned.database) == [churned.database.name]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment(sign: signal.Signals, churned: Box, tmp_path: Path) -> None:
    before = everything(churned.database)
    copy = tmp_path / "copy" / churned.database.name
    copy.parent.mkdir()
    shutil.copyfile(churned.database, copy)
    started = time.monotonic()
    assert run(copy).returncode == 0
    duration = time.monotonic() - started
    hits = 0
    for turn in range(24):
        if hits == 6:
            break
        shutil.copyfile(churned.database, copy)
        with subprocess.Popen(
            [*map(str, COMPACT)],
            env=environment(copy),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            time.sleep(duration * (turn % 6 + 0.7) / 6)
            process.send_signal(sign)
            _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert everything(copy) == before
        if process.returncode == 0:
            # It was faster than the one before: the machine has less else to do.
            duration *= 0.7
        else:
            hits += 1
            assert process.returncode == (130 if sign == signal.SIGINT else -sign)
        if sign == signal.SIGINT:
            assert left_beside(copy) == [copy.name]
    assert hits >= 4
    assert run(copy).returncode == 0
    assert left_beside(copy) == [copy.name]
    assert everything(copy) == before


@pytest.mark.parametrize("args", [(), ("--dry-run",)])
def test_held_open(args: tuple[str, ...], box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    # What an interrupted run left may be a running one's: it stays.
    left = box.database.with_name(f"{box.database.name}.compact")
    left.mkdir()
    with held_open(box.database) as pid:
        message = refusal(run(box.database, *args))
        assert str(box.database) in message
        assert f"pid {pid}" in message
        assert left.exists()


def test_opened_or_written_between_copy_and_swap(box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    stamp = stamp_of(box.database)
    with locked(box.database, stamp), pytest.raises(AssertionError, match="Conflicting lock"):
        # In another process: a lock is no hindrance to the one that has it.
        raise AssertionError(held_open_error(box.database))
    with held_open(box.database), pytest.raises(LoadError, match="just now"):
        locked(box.database, stamp).__enter__()
    box.write("acme/orders/b.csv", "id\n2\n")
    box.load()
    with pytest.raises(LoadError, match="just now"):
        locked(box.database, stamp).__enter__()


def held_open_error(database: Path) -> str:
    opened = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=True)"
    command = [sys.executable, "-c", opened, database]
    return subprocess.run(command, capture_output=True, text=True).stderr


def test_files_that_are_none(tmp_path: Path) -> None:
    missing = tmp_path / "none.duckdb"
    for args in ((), ("--dry-run",)):
        assert f"there is no warehouse {missing}" in refusal(run(missing, *args))
    assert "in memory" in refusal(run(":memory:"))
    other = tmp_path / "other.duckdb"
    other.write_text("no database " * 10_000)
    assert f"{other} cannot be opened" in refusal(run(other))
    assert f"{tmp_path} cannot be opened" in refusal(run(tmp_path))
    assert "no target 'nowhere'" in refusal(run(missing, "--target", "nowhere"))
    assert refusal(run(missing, "--nonsense"), 2)
    assert left_beside(missing) == []


def test_folder_that_is_not_to_be_written_to(box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    before = box.database.read_bytes()
    box.database.parent.chmod(0o555)
    try:
        message = refusal(run(box.database, command=(*without_root_rights(), *COMPACT)))
    finally:
        box.database.parent.chmod(0o755)
    assert "permission denied" in message
    assert str(box.database) in message
    assert box.database.read_bytes() == before


def test_too_little_disk_space(tmp_path: Path) -> None:
    database = tmp_path / "warehouse.duckdb"
    with pytest.raises(LoadError, match=r"warehouse.duckdb has .* MB free, .* may need .* MB"):
        check_disk(database, Space(size=1 << 62, used=1 << 60, free=0))
    check_disk(database, Space(size=1 << 62, used=1, free=1 << 61))


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("compact.checksum = lambda of, database, table: (1, database)", "is not the same in the"),
        ("compact.listed = lambda of, function, database: database", "duckdb_schemas is not"),
        ("compact.SPARE = 1e12", "make room first"),
        (
            "def full(*_): raise OSError(28, 'No space left on device')\ncompact.write_copy = full",
            "the disk of",
        ),
        ("compact.MEMORY_LIMIT = '1MB'", "Out of Memory"),
    ],
)
def test_what_goes_wrong_leaves_the_file_as_it_was(patch: str, said: str, box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    before = box.database.read_bytes()
    start = f"import sys; sys.path[0] = {str(PROJECT)!r}; from ingest import compact\n"
    failing = (sys.executable, "-c", f"{start}{patch}\ncompact.main()")
    assert said in refusal(run(box.database, command=failing))
    assert left_beside(box.database) == [box.database.name]
    assert box.database.read_bytes() == before


@pytest.mark.parametrize("step", ["write_copy", "locked", "sync"])
def test_interrupted_at_any_step_leaves_nothing(step: str, churned: Box) -> None:
    before = everything(churned.database)
    start = f"import signal, sys; sys.path[0] = {str(PROJECT)!r}; from ingest import compact\n"
    patch = f"compact.{step} = lambda *_: signal.raise_signal(signal.SIGINT)\n"
    result = run(churned.database, command=(sys.executable, "-c", f"{start}{patch}compact.main()"))
    assert result.returncode == 130, result.stderr
    assert left_beside(churned.database) == [churned.database.name]
    assert everything(churned.database) == before


def test_works_from_anywhere_and_through_a_link(churned: Box, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    link = elsewhere / churned.database.name
    link.symlink_to(churned.database)
    size = churned.database.stat().st_size
    assert run(link, cwd=elsewhere).returncode == 0
    assert link.is_symlink()
    assert stat.S_ISREG(churned.database.lstat().st_mode)
    assert churned.database.stat().st_size < size
    module = (sys.executable, "-m", "ingest.compact")
    assert "tables with" in run(link, "--dry-run", command=module, cwd=PROJECT).stdout
    help_text = run(link, "--help").stdout
    assert "python ingest/compact.py --dry-run say what the file holds" in " ".join(
        help_text.split()
    )
