"""What is to be done with each file of the landing zone: decided by its bytes, not its name."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ingest.errors import FileRefused
from ingest.landing import LandedFile
from ingest.scan import Scan, file_stamp, scan_file
from ingest.warehouse import Version

Status = Literal["new", "replaced", "reloaded", "unchanged", "duplicate", "refused"]


@dataclass(frozen=True)
class Step:
    """What happens to one file, and why where that is not plain.

    A file that is to be loaded has its `scan`, one whose bytes are in the warehouse the version
    `loaded`. `replaces` are the versions whose rows go at the same moment: they had this name or
    that of a file with the same bytes, or are loaded anew.
    """

    file: LandedFile
    status: Status
    scan: Scan | None = None
    loaded: Version | None = None
    replaces: tuple[Version, ...] = ()
    note: str = ""


@dataclass
class Plan:
    """One step per file, and `renamed`: versions found again under a new name or time stamp."""

    steps: list[Step] = field(default_factory=list)
    renamed: dict[Version, tuple[str, int]] = field(default_factory=dict)


def make_plan(
    files: list[LandedFile],
    versions: list[Version],
    *,
    full_refresh: bool = False,
    progress: Callable[[int], None] = lambda size: None,
) -> Plan:
    """Compare the files with the registry's current versions.

    A file whose name, size and modification time are in the registry is taken as unchanged; any
    other, and every one with `full_refresh`, is read once. `progress` is called with the size in
    bytes of each file done.
    """
    plan = Plan()
    by_name = {(version.raw_table, version.name): version for version in versions}
    by_id = {(version.raw_table, version.file_id): version for version in versions}
    owners = {version.raw_table: version.folder for version in versions}
    found: list[tuple[LandedFile, Version | Scan]] = []
    holders: dict[tuple[str, str], LandedFile] = {}
    for file in files:
        before = by_name.get((file.raw_table, file.name))
        try:
            owner = owners.get(file.raw_table, file.folder)
            if owner != file.folder:
                raise FileRefused(
                    f"raw.{file.raw_table} holds the files of {'/'.join(owner)}: rename the folder"
                )
            stamp = file_stamp(file.path)
            is_known = before is not None and stamp == (before.size, before.modified_us)
            seen = before if is_known and not full_refresh else scan_file(file.path)
        except (FileRefused, OSError) as error:
            plan.steps.append(Step(file, "refused", note=why_refused(error)))
            continue
        progress(stamp[0])
        found.append((file, seen))
        # Of files with the same bytes, the one that the registry knows stands for them all.
        if before is not None and before.file_id == seen.file_id:
            holders[file.raw_table, seen.file_id] = file
        else:
            holders.setdefault((file.raw_table, seen.file_id), file)

    overwritten: dict[tuple[str, str], list[Version]] = defaultdict(list)
    for file, seen in found:
        before = by_name.get((file.raw_table, file.name))
        if before is not None and (file.raw_table, before.file_id) not in holders:
            overwritten[file.raw_table, seen.file_id].append(before)

    for file, seen in found:
        content = (file.raw_table, seen.file_id)
        loaded = by_id.get(content)
        replaces = tuple(overwritten[content])
        is_overwritten = by_name.get((file.raw_table, file.name)) in replaces
        if holders[content] != file:
            note = f"same bytes as {holders[content].name}"
            plan.steps.append(Step(file, "duplicate", note=note))
        elif loaded is None:
            status = "replaced" if is_overwritten else "new"
            plan.steps.append(Step(file, status, seen, replaces=replaces))
        elif full_refresh:
            plan.steps.append(Step(file, "reloaded", seen, replaces=(loaded, *replaces)))
        else:
            status = "replaced" if is_overwritten else "unchanged"
            plan.steps.append(Step(file, status, loaded=loaded, replaces=replaces))
            if (file.name, seen.modified_us) != (loaded.name, loaded.modified_us):
                plan.renamed[loaded] = (file.name, seen.modified_us)
    plan.steps.sort(key=lambda step: step.file.name)
    return plan


def why_refused(error: FileRefused | OSError) -> str:
    """Say why a file cannot be loaded, without its name."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
