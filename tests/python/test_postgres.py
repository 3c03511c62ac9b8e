"""What only a server brings: crashes of either side, a lock, passwords, permissions, limits."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from string import ascii_letters

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest import on_postgres
from ingest.errors import FileRefused

from .conftest import PROJECT, PostgresBox, content
from .servers import PostgresServer
from .test_load_bad_use import refusal
from .test_load_killed import Calm


class CalmServer(Calm):
    """A load into PostgreSQL, to be disturbed."""

    box: PostgresBox

    def save(self) -> None:
        """Keep a copy of the database."""
        self.before = f"{self.box.name}_before"
        self.box.server.execute(f"create database {self.before} template {self.box.name}")

    def again(self) -> None:
        """Put the copy in place of the database."""
        server, name = self.box.server, self.box.name
        server.execute(f"drop database {name} with (force)")
        server.execute(f"create database {name} template {self.before}")


@pytest.fixture(scope="module")
def calm(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> CalmServer:
    folder = tmp_path_factory.mktemp("calm")
    (folder / "landing").mkdir()
    postgres.execute("create database calm")
    return CalmServer(PostgresBox(folder / "landing", folder / "warehouse", postgres, "calm"))


def test_client_killed_and_run_again(calm: CalmServer) -> None:
    """At seeded moments all over the load; what a reader sees in between is whole files."""
    chance = random.Random("client")
    kills, hits = 8, 0
    for turn in range(kills):
        calm.again()
        moment = calm.seconds * (turn + chance.random()) / kills
        with calm.start() as load:
            time.sleep(moment)
            load.kill()
            load.communicate()
        hits += load.returncode == -signal.SIGKILL
        calm.box.check_registry()
        calm.box.load()
        assert content(calm.box) == calm.expected, f"killed after {moment:.3f} s"
        assert not calm.box.workspace.exists()
    assert hits >= kills // 2


def test_server_restarted_in_the_middle(calm: CalmServer) -> None:
    """Shut down or crashed at seeded moments: the load says so, and the next one completes it."""
    chance = random.Random("server")
    failed = 0
    for mode, share in (("fast", 0.4), ("immediate", 0.55), ("immediate", 0.7), ("fast", 0.85)):
        calm.again()
        with calm.start() as load:
            time.sleep(calm.seconds * (share + 0.1 * chance.random()))
            calm.box.server.stop(mode)
            calm.box.server.start()
            _, messages = load.communicate(timeout=60)
        assert load.returncode in (0, 1), messages
        assert "Traceback" not in messages
        if load.returncode:
            failed += 1
            assert messages.splitlines()[-1].startswith("Error: ")
        calm.box.check_registry()
        calm.box.load()
        assert content(calm.box) == calm.expected, (mode, share)
    assert failed


def test_two_loads_at_once(calm: CalmServer) -> None:
    """While one load goes on, another leaves and says who it waits for; a third that waits wins."""
    calm.again()
    box = calm.box
    with calm.start() as first:
        assert first.stderr.readline()
        result: dict[str, subprocess.CompletedProcess[str]] = {}
        hold = threading.Thread(target=lambda: result.update(waited=box.run()))
        os.kill(first.pid, signal.SIGSTOP)
        try:
            message = refusal(box.run())
            assert f"pid {first.pid} on" in message
            assert "server process" in message
            # Looking is allowed.
            assert box.run("--dry-run").returncode == 0
            hold.start()
            time.sleep(1)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        _, messages = first.communicate(timeout=60)
        assert first.returncode == 0, messages
        hold.join()
    assert result["waited"].returncode == 0, result["waited"].stderr
    assert content(box) == calm.expected


def test_interrupted_load_is_completed_by_the_next(calm: CalmServer) -> None:
    calm.again()
    with calm.start() as load:
        assert load.stderr.readline()
        load.send_signal(signal.SIGINT)
        _, messages = load.communicate(timeout=60)
    assert load.returncode == 130, messages
    assert "Traceback" not in messages
    assert not calm.box.workspace.exists()
    calm.box.check_registry()
    calm.box.load()
    assert content(calm.box) == calm.expected


@pytest.fixture
def limited(postgres_box: PostgresBox) -> Iterator[PostgresBox]:
    """Return a box whose server knows a user `limited` that may do nothing."""
    postgres_box.write("acme/orders/a.csv", "id\n1\n")
    postgres_box.server.execute("create role limited login password 'limited'")
    yield postgres_box
    postgres_box.server.execute(
        "drop owned by limited cascade; drop role limited", postgres_box.name
    )


def test_wrong_use_ends_with_one_line(limited: PostgresBox, tmp_path: Path) -> None:
    """Each says what was found and what to do."""
    absent = tmp_path / "absent" / "psycopg2"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ModuleNotFoundError('psycopg2')")
    limited.server.execute(
        "create database latin encoding 'LATIN1' locale 'C' locale_provider libc template template0"
    )
    as_limited = {"PGUSER": "limited", "PGPASSWORD": "limited"}
    for variables, *words in (
        ({"PGPORT": "1"}, "127.0.0.1, port 1", "Connection refused", "PGHOST"),
        ({"PGHOST": "no.such.host.invalid"}, "no.such.host.invalid", "PGHOST"),
        ({"PGPASSWORD": "wrong"}, "password authentication failed", "PGPASSWORD"),
        ({"PGPASSWORD": ""}, "password", "PGPASSWORD"),
        ({"PGUSER": "nobody"}, "password authentication failed", "PGUSER"),
        ({"PGDATABASE": "nowhere"}, 'database "nowhere" does not exist', "PGDATABASE"),
        ({"PGDATABASE": "latin"}, "LATIN1", "encoding 'UTF8'"),
        ({"PGPORT": "many"}, "port"),
        (as_limited, "permission denied", limited.name, "user limited"),
        ({"PYTHONPATH": str(absent.parent)}, "driver is not installed", "[postgres]"),
    ):
        message = refusal(limited.run(**variables))
        assert all(word in message for word in words), message
    assert limited.tables() == {}
    # With the right to create schemas in the database, all goes well.
    limited.execute(f"grant create on database {limited.name} to limited")
    result = limited.run(**as_limited)
    assert result.returncode == 0, result.stderr
    # And what is somebody else's cannot be changed by who may only read it.
    limited.execute("reassign owned by limited to postgres")
    limited.execute(
        "grant usage on schema raw to limited",
        "grant select on all tables in schema raw to limited",
    )
    limited.write("acme/orders/b.csv", "id\n2\n")
    assert "permission denied" in refusal(limited.run(**as_limited))
    assert limited.query("select id from raw.acme_orders") == [("1",)]


def test_password_stands_in_no_file_and_no_message(limited: PostgresBox, tmp_path: Path) -> None:
    """A password file serves as well as PGPASSWORD; what is written has neither."""
    secret = "".join(random.Random("secret").choices("abcdefghijklmnop", k=20))
    limited.execute(
        f"alter role limited password '{secret}'",
        f"grant create on database {limited.name} to limited",
    )
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{limited.server.port}:*:limited:{secret}\n")
    file.chmod(0o600)
    result = limited.run(PGUSER="limited", PGPASSWORD="", PGPASSFILE=str(file))
    assert result.returncode == 0, result.stderr
    result = limited.run(PGUSER="limited", PGPASSWORD=secret, PGDATABASE="nowhere")
    assert secret not in result.stdout + result.stderr


def test_what_a_table_cannot_hold_is_refused(postgres_box: PostgresBox) -> None:
    """Too many columns, also over several files, and rows that fit into no page; others load."""
    box = postgres_box

    def columns(first: int, count: int, value: str) -> str:
        names = (f"c{number}" for number in range(first, first + count))
        return ",".join(names) + "\n" + ",".join([value] * count) + "\n"

    box.write("acme/fits/a.csv", columns(0, 1_597, ""))
    box.write("acme/fits/b.csv", columns(0, 1_000, "1"))
    box.write("acme/one_more/a.csv", columns(0, 1_598, ""))
    box.write("acme/together/a.csv", columns(0, 900, "1"))
    box.write("acme/together/b.csv", columns(900, 900, "1"))
    box.write("acme/page/a.csv", columns(0, 430, "a value of more than twenty bytes"))
    box.write("acme/page/b.csv", columns(0, 460, "a value of more than twenty bytes"))
    result = box.run()
    assert result.returncode == 1, result.stderr
    refused = [line for line in result.stderr.splitlines() if line.startswith("Refused")]
    assert len(refused) == 3, refused
    assert (
        "one_more/a.csv: with its 1,598 columns, raw.acme_one_more would have 1,601" in refused[0]
    )
    assert "page/b.csv: record 1 takes" in refused[1]
    assert "PostgreSQL can hold 8,160" in refused[1]
    assert "together/b.csv: with its 900 columns, raw.acme_together would have 1,803" in refused[2]
    assert {name: rows for name, rows in box.tables().items() if name.startswith("acme")} == {
        "acme_fits": 2,
        "acme_page": 1,
        "acme_together": 1,
    }
    # What was refused is refused again, of a table that is there now, too.
    assert box.run("--verify").returncode == 1
    box.check_registry()


@pytest.mark.parametrize("length", [1, 7, 20, 22, 23, 24, 126, 127, 3_000])
def test_rows_that_fit_are_just_those_that_are_let_through(
    length: int, postgres: PostgresServer, tmp_path: Path
) -> None:
    """What passes does fit into a page; with a few more values it does not: hardly a row is
    refused that could be held."""
    parquet = tmp_path / "rows.parquet"
    value = "".join(random.Random(length).choices(ascii_letters, k=length))

    def passes(count: int) -> bool:
        row = {f"c{number}": [value] for number in range(count)}
        row |= {"_file_id": ["f" * 64], "_row_number": pa.array([1], pa.int64())}
        pq.write_table(pa.table(row), parquet)
        try:
            on_postgres._check_rows(pq.read_table(parquet), count + 3)
        except FileRefused:
            return False
        return True

    def fits(count: int) -> bool:
        names = [f"c{number}" for number in range(count)]
        values = ", ".join([f"'{value}'"] * count)
        listed = ", ".join(f"{name} varchar" for name in names)
        try:
            postgres.execute(
                f"drop table if exists page; create table page ({listed}, _file_id varchar,"
                " _row_number bigint, _dlt_load_id varchar); insert into page values"
                f" ({values}, '{'f' * 64}', 1, '1795570704.3725224')"
            )
        except on_postgres.psycopg2.Error as error:
            assert "row is too big" in str(error)
            return False
        return True

    most = bisect_left(range(1, 1_598), True, key=lambda count: not passes(count))
    assert fits(most)
    assert most == 1_597 or not fits(int(most * 1.03) + 3)


def test_record_of_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size counts, not that of its neighbours. (Tested with a smaller limit.)"""
    monkeypatch.setattr(on_postgres, "MAX_RECORD_BYTES", 1_000)
    rows = {"a": ["x" * 900, None, "x" * 600], "b": ["", "y" * 900, "y" * 500]}
    table = pa.table(rows | {"_row_number": pa.array([4, 5, 7], pa.int64())})
    on_postgres._check_rows(table.slice(0, 2), 5)
    with pytest.raises(
        FileRefused, match="record 7 has 1,106 bytes, and PostgreSQL can hold 1,000"
    ):
        on_postgres._check_rows(table, 5)


def test_driver_is_imported_by_nobody_else() -> None:
    """DuckDB's users need not have it, and do not wait for it."""
    code = "import sys, ingest.load; sys.exit('psycopg2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
