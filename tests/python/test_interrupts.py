"""Ctrl-C at moments at which Python itself would swallow it, or die of it."""

import signal
import subprocess
import sys

import pytest

from .conftest import COUNT, PROJECT, Box, environment

# dlt's pool of connections goes in the middle of a load. What is raised there, nobody catches.
ONCE_IN_DEL = """
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
of_dlt = DuckDbConnectionPool.__del__
def interrupted(pool):
    DuckDbConnectionPool.__del__ = of_dlt
    signal.raise_signal(signal.SIGINT)
DuckDbConnectionPool.__del__ = interrupted
"""
# Modules go when Python no longer calls handlers of signals.
AT_THE_END = """
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, 2)
sys.last = Last()
"""


def run(box: Box, command: str, before: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a command of `ingest` after some Python of the test's own."""
    code = f"import os, signal, sys; sys.path[0] = {str(PROJECT)!r}\n{before}\n"
    code += f"from ingest import {command}; {command}.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=environment(box.database),
        capture_output=True,
        text=True,
        timeout=60,
        # A shell starts commands in the background with Ctrl-C ignored, tests perhaps, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_one_that_python_swallows_comes_again(box: Box) -> None:
    for name in "ab":
        box.write(f"acme/orders/{name}.csv", f"id\n{name}\n")
    result = run(box, "load", ONCE_IN_DEL, "--landing", box.landing)
    assert result.returncode == 130, result.stderr
    assert "Interrupted" in result.stderr
    assert "ignored" not in result.stderr
    assert not box.workspace.exists()
    box.load()
    box.check_registry()
    assert box.query(COUNT + "acme_orders") == [(2,)]


@pytest.mark.parametrize("command", ["load", "compact"])
def test_too_late_changes_nothing(command: str, box: Box) -> None:
    box.write("acme/orders/a.csv", "id\n1\n")
    box.load()
    args = ("--landing", box.landing) if command == "load" else ()
    result = run(box, command, AT_THE_END, *args)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
