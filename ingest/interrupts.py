"""Ctrl-C (SIGINT) in the commands: each ends with code 130 and no traceback, and none is lost.

A shell starts what runs in the background with SIGINT ignored: then it stays so.
"""

import atexit
import os
import signal
import sys
import threading

INTERRUPTED = 130
AGAIN_SECONDS = 0.01


def end_at_once() -> None:
    """Let Ctrl-C end the process: for the time of the imports, when there is nothing to undo."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def raise_them() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from here on, until Python itself ends."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _raise_again
        # At its end Python gives up its handlers: a late Ctrl-C would change the exit code.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Repeat a Ctrl-C that came where an exception leads nowhere, such as in a `__del__`."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = threading.Timer(AGAIN_SECONDS, signal.raise_signal, [signal.SIGINT])
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
