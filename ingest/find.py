"""Find files in the landing zone by id, tag, source or time.

\b
    python ingest/find.py --source acme/invoices --tag year=2024
    python ingest/find.py --id 9f86d081 --json
    python ingest/find.py --since 2024-06-01

Every file that lies there is listed, earlier versions too; one that was put there without
`ingest/land.py` has no id, tags or time of receipt, and is found by its source alone.

Exit codes: 0 something was found; 1 nothing was, or the landing zone cannot be read; 2 the command
line is wrong; 130 interrupted.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `ingest` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from ingest import interrupts

    # To the end: nothing is changed that could be left half done.
    interrupts.end_at_once()

import click

from ingest.errors import FileRefused
from ingest.land import TagType
from ingest.landing import HIDDEN, OWN_LANDING, LandedFile, Landing, Note, open_landing
from ingest.options import landing_option
from ingest.report import table

AT_ONCE = 16


@dataclass(frozen=True)
class Found:
    """A file in the landing zone, and what is noted of it."""

    file: LandedFile
    size: int
    note: Note | None
    shown: str

    def is_wanted(
        self, object_id: str | None, tags: dict[str, str], since: datetime | None
    ) -> bool:
        """Tell whether the file has all of these."""
        if not (object_id or tags or since):
            return True
        if not self.note or not self.note.object_id.startswith((object_id or "").lower()):
            return False
        is_late = not since or datetime.fromisoformat(self.note.received_at) >= since
        return is_late and tags.items() <= self.note.tags.items()

    def as_json(self) -> str:
        """Return what is known of the file as JSON."""
        nothing = dict.fromkeys(Note.__dataclass_fields__)
        facts = {
            "file": self.shown,
            "source": self.file.source,
            "table": self.file.table,
            "is_current": not is_kept(self.file),
            "bytes": self.size,
        }
        return json.dumps(facts | (vars(self.note) if self.note else nothing), ensure_ascii=False)

    def as_cells(self) -> tuple[str, ...]:
        """Return what is known of the file as a line of the table."""
        note = self.note or Note("", "", "", "")
        tags = " ".join(f"{key}={value}" for key, value in note.tags.items())
        times = note.received_at[:19], "kept" if is_kept(self.file) else "current"
        shown = click.format_filename(self.shown)
        return note.object_id[:12], *times, f"{self.size:,}", note.media_type, tags, shown


@click.command(help=__doc__)
@click.option("--id", "object_id", metavar="ID", help="The id, or how it begins.")
@click.option("--tag", "tags", multiple=True, type=TagType(), help="A tag; all that are given.")
@click.option("--source", metavar="SOURCE[/TABLE]", help="The source, or one of its tables.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Received at this time (UTC) or later.",
)
@landing_option
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per file.")
def main(
    object_id: str | None,
    tags: tuple[tuple[str, str], ...],
    source: str | None,
    since: datetime | None,
    landing: str | None,
    as_json: bool,
) -> None:
    """Run the command. The text of `--help` is the module's."""
    since = since and since.replace(tzinfo=UTC)
    zone = open_landing(landing or OWN_LANDING)
    found = [
        each
        for each in noted(zone, [file for file in every(zone) if is_of(file, source)])
        if each.is_wanted(object_id, dict(tags), since)
    ]
    if as_json:
        for each in found:
            click.echo(each.as_json())
    elif found:
        header = ("id", "received (UTC)", "version", "bytes", "media type", "tags", "file")
        click.echo(table(header, [each.as_cells() for each in found], left=(0, 1, 2, 4, 5, 6)))
    if not found:
        click.echo(f"Nothing found in {zone}.", err=True)
    sys.exit(not found)


def every(zone: Landing) -> Iterator[LandedFile]:
    """Yield the files in tables' folders, then the earlier versions of files."""
    for name in sorted(zone.names([])):
        parts = name.split("/")
        if len(parts) >= 3 and not any(part.startswith(".") for part in parts):
            yield zone.file(name)
    yield from zone.kept()


def is_of(file: LandedFile, source: str | None) -> bool:
    """Tell whether a file is of a source, or of a source/table."""
    return not source or source in (file.source, "/".join(file.folder))


def is_kept(file: LandedFile) -> bool:
    """Tell whether a file is an earlier version, which a newer one replaced."""
    return HIDDEN in file.name.split("/")


def noted(zone: Landing, files: list[LandedFile]) -> Iterator[Found]:
    """Yield files with what is noted of them; those that are gone since are left out."""

    def ask(file: LandedFile) -> Found | None:
        try:
            return Found(file, file.stamp.size, zone.note(file), zone.shown(file.name))
        except (FileRefused, FileNotFoundError):
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from filter(None, pool.map(ask, files))


if __name__ == "__main__":
    main()
