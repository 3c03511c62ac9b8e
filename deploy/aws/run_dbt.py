"""Run dbt where there are no semaphores between processes: `python -m deploy.aws.run_dbt build`.

A function of AWS Lambda has no /dev/shm, so making one fails there. dbt takes its locks from
multiprocessing, though it works with threads alone: it gets those of threads.
"""

import threading
from multiprocessing.context import BaseContext

BaseContext.Lock = lambda self: threading.Lock()
BaseContext.RLock = lambda self: threading.RLock()

if __name__ == "__main__":
    from dbt.cli.main import cli

    cli(prog_name="dbt")
