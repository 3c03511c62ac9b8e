"""Start and stop an Apache Spark cluster on this machine: `python deploy/spark/cluster.py start`.

It is a real standalone cluster on loopback: a master, two workers, and a Spark Connect server that
keeps one driver for all commands; or that server alone, for a cluster that runs already. Each is a
process of its own. What they write is below one folder: tables, metastore, logs, and `cluster.json`
with the processes and the address.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click

PROJECT = Path(__file__).resolve().parents[2]
JAVA_VERSION = 17
LOOPBACK = "127.0.0.1"
# Starting takes about ten seconds; a busy machine may need several times that.
PATIENCE = 120


class ClusterError(click.ClickException):
    """A mistake of the user's, or a process that did not start; the message says what to do."""


@click.group()
def main() -> None:
    """A Spark cluster on this machine, for trials and tests."""


in_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=PROJECT / "warehouse" / "spark",
    help="Where tables, metastore and logs are.  [default: warehouse/spark]",
)


@main.command()
@in_folder
@click.option("--port", default=15002, show_default=True, help="Of Spark Connect; 0: a free one.")
@click.option(
    "--master",
    envvar="SPARK_MASTER",
    metavar="URL",
    help="Of a cluster that runs already, such as spark://host:7077, yarn or local[4]: a Connect"
    " server alone is started, as its driver.  [default: a cluster of one's own; environment:"
    " SPARK_MASTER]",
)
@click.option("--workers", type=click.IntRange(min=1), help="[default: 2]")
@click.option("--cores", type=click.IntRange(min=1), help="Of each worker.  [default: 1]")
@click.option("--memory", default="1g", show_default=True, help="Of each worker, and the driver.")
@click.option("--conf", "confs", multiple=True, help="Setting of Spark's, as of spark-submit.")
def start(
    folder: Path,
    port: int,
    master: str | None,
    workers: int | None,
    cores: int | None,
    memory: str,
    confs: tuple[str, ...],
) -> None:
    """Start the cluster; the last line printed is its address."""
    if master and (workers or cores):
        raise click.UsageError(f"--workers and --cores are for a new cluster, not for {master}")
    check_java()
    spark = spark_home()
    folder = folder.resolve()
    if running(folder):
        raise ClusterError(f"a cluster runs in {folder}: stop it first")
    port = port or free_port()
    refuse_taken_port(port)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    remote = f"sc://{LOOPBACK}:{port}"
    own = settings(folder, port, memory)
    variables = environment(folder)
    if not master:
        own |= {
            "spark.driver.host": LOOPBACK,
            "spark.driver.bindAddress": LOOPBACK,
            # Two cores get nothing out of the default of 200.
            "spark.sql.shuffle.partitions": "2",
        }
        variables["SPARK_LOCAL_IP"] = LOOPBACK
    processes: dict[str, int] = {}

    def launch(name: str, *command: str, port: int | None = None) -> None:
        log = folder / "logs" / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(spark / "bin" / command[0]), *command[1:]],
                cwd=PROJECT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, so that its children end with it.
                start_new_session=True,
            )
        processes[name] = process.pid
        ready = folder / "cluster.json.new"
        ready.write_text(json.dumps({"remote": remote, "processes": processes}))
        ready.replace(folder / "cluster.json")
        if port:
            wait_for(process, port, log)

    def launch_cluster() -> str:
        address, master_port = ("--host", LOOPBACK, "--webui-port", "0"), free_port()
        url = f"spark://{LOOPBACK}:{master_port}"
        launch("master", "spark-class", "org.apache.spark.deploy.master.Master", *address,
               "--port", str(master_port), port=master_port)  # fmt: skip
        for number in range(1, (workers or 2) + 1):
            launch(f"worker-{number}", "spark-class", "org.apache.spark.deploy.worker.Worker",
                   *address, "--cores", str(cores or 1), "--memory", memory,
                   "--work-dir", str(folder / "work"), url)  # fmt: skip
        return url

    try:
        launch("connect", "spark-submit", "--master", master or launch_cluster(),
               "--driver-memory", memory,
               *(f"--conf={name}={value}" for name, value in own.items()),
               *(f"--conf={conf}" for conf in confs),
               "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
               "spark-internal", port=port)  # fmt: skip
        for name in processes.keys() - running(folder).keys():
            raise ClusterError(f"{name} ended: see {folder / 'logs' / name}.log")
    except BaseException:
        end(folder)
        raise
    click.echo(remote)


@main.command()
@in_folder
def stop(folder: Path) -> None:
    """Stop the cluster. Its tables stay."""
    ended = end(folder.resolve())
    click.echo(f"stopped {', '.join(ended)}" if ended else f"no cluster runs in {folder}")


@main.command()
@in_folder
def status(folder: Path) -> None:
    """Say what runs; the exit code is 1 where the cluster is not whole."""
    expected = state(folder.resolve()).get("processes", {})
    alive = running(folder.resolve())
    for name in expected:
        click.echo(f"{name}: {f'pid {alive[name]}' if name in alive else 'not running'}")
    if not alive:
        click.echo(f"no cluster runs in {folder}")
    sys.exit(not alive or alive != expected)


def settings(folder: Path, port: int, memory: str) -> dict[str, str]:
    """Return the configuration of the Connect server, which is the driver of all sessions."""
    return {
        "spark.connect.grpc.binding.address": LOOPBACK,
        "spark.connect.grpc.binding.port": str(port),
        # A killed command must not go on writing while the next one builds.
        "spark.connect.execute.manager.detachedTimeout": "30s",
        "spark.connect.execute.manager.maintenanceInterval": "1s",
        "spark.executor.memory": memory,
        "spark.local.dir": str(folder / "local"),
        "spark.ui.enabled": "false",
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(folder / "tables"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": (
            f"jdbc:derby:;databaseName={folder / 'metastore'};create=true"
        ),
        "spark.driver.extraJavaOptions": f"-Dderby.stream.error.file={folder}/logs/derby.log",
        "spark.sql.session.timeZone": "UTC",
        "spark.log.level": "ERROR",
        # A mistake is told in one line.
        "spark.sql.connect.serverStacktrace.enabled": "false",
    }


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the processes, without the settings of another Spark."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    return own | {"SPARK_LOG_DIR": str(folder / "logs")}


def spark_home() -> Path:
    """Return the folder of the installed Spark. Raises ClusterError where there is none."""
    found = find_spec("pyspark")
    if not found or not found.origin:
        raise ClusterError('Spark is not installed: pip install -e ".[spark]"')
    return Path(found.origin).parent


def check_java() -> None:
    """Raise ClusterError where there is no Java that this Spark runs on."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    advice = f"on Debian and Ubuntu, apt install openjdk-{JAVA_VERSION}-jre-headless"
    if not java:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise ClusterError(f"Spark needs Java {JAVA_VERSION}, and there is none {where}: {advice}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) < JAVA_VERSION:
        found = said.partition("\n")[0] or "something else"
        raise ClusterError(f"Spark needs Java {JAVA_VERSION}, and {java} is {found}: {advice}")


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return free.getsockname()[1]


def is_open(port: int) -> bool:
    """Tell whether something listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def refuse_taken_port(port: int) -> None:
    """Raise ClusterError where something listens on the port already."""
    if is_open(port):
        raise ClusterError(f"port {port} is taken: stop what listens there, or give another --port")


def wait_for(process: subprocess.Popen, port: int, log: Path) -> None:
    """Wait until a process listens. Raises ClusterError where it ends, or does not in time."""
    patience = time.monotonic() + PATIENCE
    while not is_open(port):
        if process.poll() is not None or time.monotonic() > patience:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ClusterError(f"{log.stem} did not start; the end of {log}:\n{last}")
        time.sleep(0.2)


def state(folder: Path) -> dict:
    """Return what `cluster.json` says; nothing where there is none."""
    try:
        return json.loads((folder / "cluster.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ClusterError(
            f"{folder / 'cluster.json'} is not understood ({error}): expected what `start` wrote."
            " End the processes of org.apache.spark.deploy by hand, then remove it"
        ) from None


def running(folder: Path) -> dict[str, int]:
    """Return the processes of the cluster that still run."""
    return {name: pid for name, pid in state(folder).get("processes", {}).items() if is_ours(pid)}


def is_ours(pid: int) -> bool:
    """Tell whether a process is one of Spark's: a number may belong to another by now."""
    # Whole, however narrow the terminal is.
    command = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True)
    return "org.apache.spark.deploy" in shown.stdout or "spark-class" in shown.stdout


def end(folder: Path) -> list[str]:
    """End the processes, with their children, last one first; return their names."""
    alive = running(folder)
    for name in reversed(alive):
        os.killpg(alive[name], signal.SIGTERM)
        patience = time.monotonic() + 15
        while is_ours(alive[name]) and time.monotonic() < patience:
            time.sleep(0.1)
        if is_ours(alive[name]):
            os.killpg(alive[name], signal.SIGKILL)
    (folder / "cluster.json").unlink(missing_ok=True)
    return list(alive)


if __name__ == "__main__":
    main()
