"""What a load says: a bar, lines and a closing table for people, JSON lines for machines."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import click

LINE_EVERY_SECONDS = 10


class FileOutcome(Protocol):
    """What became of one file."""

    name: str
    rows: int
    rejected: int
    status: str
    seconds: float
    note: str
    is_estimate: bool
    facts: Mapping[str, object]


class Report:
    """For people: progress and notes on standard error, the closing table on standard output.

    With `as_json`, every event is one JSON object on a line of standard output, and nothing else
    is written: `time` (UTC), `level`, `event`, `message`, and what belongs to the event.
    """

    def __init__(self, *, as_json: bool = False):
        self.as_json = as_json
        self.is_terminal = sys.stderr.isatty() and not as_json

    def say(self, event: str, message: str, *, level: str = "info", **facts: object) -> None:
        """Tell one event. On a terminal, it takes the place of the bar, which comes back below."""
        if self.as_json:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = {"time": moment, "level": level, "event": event, "message": message, **facts}
            click.echo(json.dumps(entry, ensure_ascii=False))
        else:
            click.echo(f"\r\x1b[K{message}" if self.is_terminal else message, err=True)

    @contextmanager
    def progress(self, label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Show progress over `total` units while the block runs; yield the function that moves it.

        A terminal gets a bar with the rate and the remaining time; elsewhere, what takes long gets
        a line now and then.
        """
        started = time.monotonic()
        done = 0

        def rate() -> float:
            return max(done, 1) / max(time.monotonic() - started, 0.001)

        if self.is_terminal and total:
            with click.progressbar(
                length=total,
                label=label,
                file=sys.stderr,
                update_min_steps=max(total // 200, 1),
                item_show_func=lambda _: f"{rate():,.0f} {unit}/s",
            ) as bar:

                def move(amount: int) -> None:
                    nonlocal done
                    done += amount
                    bar.update(amount)

                yield move
            return

        next_line = started + LINE_EVERY_SECONDS

        def count(amount: int) -> None:
            nonlocal done, next_line
            done += amount
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + LINE_EVERY_SECONDS
                left = max((total or done) - done, 0) / rate()
                self.say(
                    "progress",
                    f"{label}: {done:,} of {total or done:,} {unit}, {rate():,.0f} {unit}/s,"
                    f" {left:,.0f} s left",
                    done=done,
                    total=total,
                    unit=unit,
                    per_second=round(rate()),
                    seconds_left=round(left),
                )

        yield count

    def close(self, outcomes: list[FileOutcome]) -> None:
        """Say what became of each file, and of all together."""
        if not self.as_json:
            click.echo(_files(outcomes))
            for outcome in outcomes:
                if outcome.note:
                    message = f"{outcome.status.capitalize()}: {outcome.name}: {outcome.note}"
                    self.say("note", message)
            return
        for outcome in outcomes:
            counts = {"rows": outcome.rows, "rejected": outcome.rejected}
            if outcome.is_estimate:
                counts = {"rows": None, "rejected": None, "rows_estimated": outcome.rows}
            self.say(
                "file",
                f"{outcome.name}: {outcome.status}" + f": {outcome.note}" * bool(outcome.note),
                level="error" if outcome.status == "refused" else "info",
                file=outcome.name,
                status=outcome.status,
                **counts,
                seconds=round(outcome.seconds, 3),
                **outcome.facts,
            )
        statuses = [outcome.status for outcome in outcomes]
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        self.say("summary", f"{len(outcomes)} files", files=len(outcomes), by_status=counts)


def table(header: Sequence[str], lines: list[Sequence[str]], *, left: Sequence[int]) -> str:
    """Format lines of cells under a header; the columns `left` are flush left, others right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, ["-" * width for width in widths], *lines)
    )


def _files(outcomes: list[FileOutcome]) -> str:
    lines = [
        (
            outcome.name,
            f"{'~' * outcome.is_estimate}{outcome.rows:,}",
            "?" if outcome.is_estimate else f"{outcome.rejected:,}",
            outcome.status,
            f"{outcome.seconds:.1f}",
        )
        for outcome in outcomes
    ]
    return table(("file", "rows", "rejected", "status", "seconds"), lines, left=(0, 3))
