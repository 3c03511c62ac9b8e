"""What the benchmarks share: a command measured as a whole process, and what it ran on."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click

BENCHMARKS = Path(__file__).resolve().parent
PROJECT = BENCHMARKS.parent
LIMIT_SECONDS = 30 * 60


class FailedError(Exception):
    """A contestant could not be installed, failed or took too long; the text is its last word."""


@dataclass(frozen=True)
class Usage:
    """What one process cost, as the system tells when it has ended.

    CPU seconds are those of the process and its children, `peak_bytes` that of the largest one.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(
    command: list[str | Path],
    database: Path,
    limit_seconds: int = LIMIT_SECONDS,
    **variables: str,
) -> Usage:
    """Run a command to its end and return what it cost. Raises FailedError."""
    # Nobody pays for what the contestant before left to be written to disk.
    os.sync()
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment(database) | variables,
            cwd=database.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        alarm = threading.Timer(limit_seconds, os.killpg, (process.pid, signal.SIGKILL))
        alarm.daemon = True
        alarm.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            alarm.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == -signal.SIGKILL:
            raise FailedError(f"killed after {seconds:.0f} s: out of time or of memory")
        if process.returncode:
            log.seek(0)
            raise FailedError(last_error(log.read()))
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def environment(database: Path) -> dict[str, str]:
    """Return the environment of every contestant: compiled bytecode, no telemetry, a home here."""
    ours = ("ONTIME_", "DBT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "ONTIME_DUCKDB_PATH": str(database),
        "HOME": str(database.parent),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DISABLE_TELEMETRY": "true",
        "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


def last_error(output: str) -> str:
    """Return the line that says what went wrong, without addresses and folders."""
    lines = [line.strip(" │╰─") for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith("WARNING")] or ["no output"]
    errors = [line for line in lines if re.match(r"(ERROR|[\w.]*(Error|Exception))\b", line)]
    line = re.sub(r"\w+://\S+?(?=:?(\s|$))", "<address>", (errors or lines)[-1])
    return re.sub(r"(?<![\w.<])/\S+/", "", line).replace("`", "'")[:200]


def machine() -> dict[str, str | int]:
    """Describe the machine."""
    cpu = platform.processor() or platform.machine()
    system = f"{platform.system()} {re.match(r'[0-9.]*', platform.release())[0]}"
    if Path("/proc/cpuinfo").exists():
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = model[1] if model else cpu
        system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": system,
        "python": platform.python_version(),
    }


def integers(_context: object, _parameter: object, text: str) -> list[int]:
    """Parse an option such as 1,10,30."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.BadParameter(f"{text!r}: expected numbers, such as 1,10,30")
    return sorted(map(int, text.split(",")))


def write_json(results: dict, name: str, out: Path) -> None:
    """Write every single figure to a JSON file in the folder `out`, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_results(text: str, marker: str, out: Path) -> None:
    """Show a text, and put it between this marker's comments in a README.md in the folder `out`.

    The rest of it is this folder's own README.md, or what an earlier benchmark wrote there.
    """
    written = out / "README.md"
    readme = (written if written.exists() else BENCHMARKS / "README.md").read_text()
    marks = re.compile(rf"(?<=<!-- {marker} -->\n).*(?=<!-- end of {marker} -->)", re.DOTALL)
    written.write_text(marks.sub(lambda _: f"\n{text}\n\n", readme))
    click.echo(text)
