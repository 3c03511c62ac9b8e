"""What is to be done with each file of the landing zone: decided by its bytes, not its name."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

from ingest import formats
from ingest.columns import (
    Source,
    TableColumns,
    changes_in_words,
    column_names,
    known_sources,
    unexpected,
)
from ingest.errors import FileRefused, Unread
from ingest.landing import OTHER, LandedFile, Landing, Note, Place
from ingest.scan import Scan
from ingest.unpack import ZIP, NoData, unfold
from ingest.warehouse import Version

Status = Literal["new", "replaced", "reloaded", "unchanged", "duplicate", "forgotten", "refused"]
Content = tuple[str, str]  # raw table and file id


@dataclass(frozen=True)
class Step:
    """What happens to one CSV file, and why where that is not plain.

    A file that is to be loaded has its `scan` and, once `Columns` has named them, its `columns` in
    the raw table and what `changes` in them since the file before; one whose bytes are in the
    warehouse has the version `loaded`. `places` are where these bytes lie, the file's own first;
    `landed` is what is noted of it, where that may be new. `replaces` tells that other bytes had
    its name before and gave way, `may_pass` that it was refused for what may pass by itself.
    """

    file: LandedFile
    status: Status
    scan: Scan | None = None
    columns: tuple[str, ...] = ()
    changes: Mapping[str, object] = field(default_factory=dict, hash=False)
    places: tuple[Place, ...] = ()
    landed: Note | None = field(default=None, hash=False)
    loaded: Version | None = None
    note: str = ""
    replaces: bool = False
    may_pass: bool = False

    @property
    def file_id(self) -> str | None:
        """The SHA-256 of the file's bytes; None where they are another step's, or unknown."""
        known = self.scan or self.loaded
        return known and known.file_id

    @property
    def content(self) -> Content:
        """What the file holds: raw table and SHA-256; only for one that was read or is known."""
        return self.file.raw_table, self.file_id


@dataclass
class Plan:
    """One step per file, and the versions to retire.

    `retires` has versions whose bytes lie nowhere any more because others came to their places, and
    for each the contents that must be in the warehouse first. `left` are the files
    that cannot be loaded and were not landed, and such members of archives.
    """

    steps: list[Step] = field(default_factory=list)
    retires: dict[Version, set[Content]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A file whose bytes are known: from the registry, or from reading them (`scan`).

    `landed` is what is noted of it, where that may be new.
    """

    file: LandedFile
    file_id: str
    place: Place
    scan: Scan | None = None
    landed: Note | None = None

    @property
    def content(self) -> Content:
        return self.file.raw_table, self.file_id


def make_plan(
    files: list[LandedFile],
    versions: list[Version],
    landing: Landing,
    *,
    verify: bool = False,
    full_refresh: bool = False,
    with_forgotten: bool = False,
    progress: Callable[[int], None] = lambda size: None,
) -> Plan:
    """Compare the files of the landing zone with the registry's versions, oldest first.

    A file whose name, size and modification time are in the registry is taken as unchanged; any
    other, and every one with `verify` or `full_refresh`, is read once; a full refresh
    `with_forgotten` loads also what was forgotten. `progress` is called with the size in bytes of
    each file done.
    """
    registry = _Registry(versions)
    plan = Plan()
    found: list[_Found] = []
    # For each delivered file that was read: what it holds now, by the names of its members.
    delivered: list[tuple[LandedFile, set[str], list[_Found]]] = []
    for file in files:
        try:
            registry.check_owner(file)
            size = file.stamp.size
            known = [] if verify or full_refresh else registry.unchanged(file)
            if known:
                found += _noted(known, file, landing)
            else:
                members, read = _opened(file, landing, plan)
                delivered.append((file, members, read))
                found += read
        except (FileRefused, OSError) as error:
            plan.steps.append(refusal(file, error))
            continue
        progress(size)
    known_names = {each.file.name for each in found} | {step.file.name for step in plan.steps}
    found += registry.elsewhere(known_names, landing)
    found = _without_emptied(found, registry, plan)
    plan.retires = _superseded(found, delivered, registry, plan)

    gave_way = {
        (version.raw_table, place.name)
        for version in versions
        if not version.is_current and not version.is_forgotten
        for place in version.places
    }

    holders: dict[Content, list[_Found]] = defaultdict(list)
    for each in sorted(found, key=lambda each: (each.file.name not in known_names, each.file.name)):
        # Of files with the same bytes, the one that the registry knows stands for them all.
        loaded = registry.by_content.get(each.content)
        is_first = bool(loaded) and loaded.name == each.file.name and each.file.name in known_names
        holders[each.content].insert(0 if is_first else len(holders[each.content]), each)
    for content, (first, *others) in holders.items():
        if first.file.name not in known_names:
            continue
        loaded = registry.by_content.get(content)
        old = registry.by_name.get((first.file.raw_table, first.file.name))
        step = Step(
            first.file,
            status="replaced" if old in plan.retires else "new",
            scan=first.scan,
            places=tuple(each.place for each in (first, *others)),
            landed=first.landed,
            loaded=loaded,
            replaces=old in plan.retires or (first.file.raw_table, first.file.name) in gave_way,
        )
        if loaded and full_refresh and (loaded.is_current or with_forgotten):
            step = replace(step, status="reloaded")
        elif loaded and not loaded.is_current:
            step = replace(step, status="forgotten", scan=None, note=FORGOTTEN)
        elif loaded:
            status = "replaced" if old in plan.retires else "unchanged"
            step = replace(step, status=status, scan=None)
        elif first.scan.form != OTHER and not first.scan.header and not first.scan.records:
            step = replace(step, note="the file is empty: not even a line with column names")
        plan.steps.append(step)
        note = f"same bytes as {first.file.name}"
        plan.steps += [
            Step(each.file, "duplicate", note=note)
            for each in others
            if each.file.name in known_names
        ]
    plan.steps.sort(key=lambda step: step.file.name)
    return plan


FORGOTTEN = "its rows were removed with --forget; --full-refresh with its path loads it again"


def _noted(known: list[_Found], file: LandedFile, landing: Landing) -> list[_Found]:
    """Add what is newly noted of a delivered file to what is known of the files in it."""
    note = landing.note(file, known[0].place)
    modified_us = file.stamp.modified_us
    return [
        replace(each, landed=note, place=replace(each.place, modified_us=modified_us))
        for each in known
    ]


def _opened(file: LandedFile, landing: Landing, plan: Plan) -> tuple[set[str], list[_Found]]:
    """Return the names of the files that a delivered file holds, and those that were read.

    One that cannot be loaded is read by nobody: it is found if it was landed, so that its id is
    known, and left alone if not. Raises FileRefused or OSError for one that cannot be opened.
    """
    note = landing.note(file)
    try:
        if not file.is_loadable:
            raise NoData("is of no format that can be loaded")
        fetched = landing.fetch(file)
        members, left = unfold(fetched)
    except NoData:
        if note:
            scan = catalogued(file, note)
            return {file.name}, [_Found(file, scan.file_id, scan.place, scan, note)]
        if file.is_loadable:
            raise
        plan.left.append(file.name)
        return set(), []
    plan.left += [f"{file.name}/{name}" for name in left]
    return {member.name for member in members}, _read(members, note, plan)


def catalogued(file: LandedFile, note: Note) -> Scan:
    """Return what is known of a landed file that cannot be loaded."""
    place = Place.of(file.name, file.stamp, None)
    return Scan(note.object_id, place, encoding=None, header=(), lines=0, records=0, form=OTHER)


def _read(members: list[LandedFile], note: Note | None, plan: Plan) -> list[_Found]:
    """Read files to the end; those that are refused become steps of the plan."""
    found = []
    for file in members:
        source = known_sources().get(file.raw_table, Source())
        try:
            scan = formats.scan(file, source)
        except (FileRefused, OSError) as error:
            plan.steps.append(refusal(file, error))
        else:
            place = replace(scan.place, members=len(members))
            found.append(_Found(file, scan.file_id, place, scan, note))
    return found


def _without_emptied(found: list[_Found], registry: "_Registry", plan: Plan) -> list[_Found]:
    """Refuse a file without any byte that would take the place of rows."""
    contents = {each.content for each in found}
    kept = []
    for each in found:
        known = registry.by_content.get(each.content)
        is_full = each.scan.header or each.scan.records if each.scan else known.header or known.rows
        old = registry.by_name.get((each.file.raw_table, each.file.name))
        if is_full or not old or not old.is_current or not old.rows or old.content in contents:
            kept.append(each)
        else:
            note = (
                f"is empty, and would remove the {old.rows:,} rows that were loaded from it before:"
                " deliver it again, or remove them with --forget"
            )
            plan.steps.append(Step(each.file, "refused", note=note))
    return kept


def _superseded(
    found: list[_Found],
    delivered: list[tuple[LandedFile, set[str], list[_Found]]],
    registry: "_Registry",
    plan: Plan,
) -> dict[Version, set[Content]]:
    """Return the current versions that lie nowhere any more, with what came to their places.

    That is the file that now has a version's name or, where an archive was delivered anew without
    it, all that the archive holds now. A version with a place whose new bytes were refused stays.
    """
    here = {(each.file.raw_table, each.file.name): each.content for each in found}
    contents = set(here.values())
    refused = {(step.file.raw_table, step.file.name) for step in plan.steps}
    successors: dict[tuple[str, str], set[Content]] = {
        name: {content} for name, content in here.items()
    }
    for file, names, read in delivered:
        for name in registry.names_in(file) - names:
            successors[file.raw_table, name] = {each.content for each in read}
            if len(read) < len(names):
                refused.add((file.raw_table, name))
    superseded = {}
    for version in registry.versions:
        if not version.is_current or version.content in contents:
            continue
        names = {(version.raw_table, place.name) for place in version.places}
        if names & refused or not names & successors.keys():
            continue
        superseded[version] = set().union(*(successors[name] for name in names & successors.keys()))
    return superseded


class Columns:
    """The columns of all raw tables, as the files bring them that are loaded one after the other.

    A file that turns out to be unreadable leaves no trace: `name` tells what a file's columns are
    called, and only one that is given to `take` counts for those after it.
    """

    def __init__(self, versions: list[Version]):
        self._versions = [version for version in versions if version.form != OTHER]

    @cached_property
    def _headers_before(self) -> dict[tuple[str, str], tuple[str, ...]]:
        by_name = _Registry(self._versions).by_name
        return {name: version.header for name, version in by_name.items() if version.is_current}

    @cached_property
    def _tables(self) -> dict[str, TableColumns]:
        # Only where a file is to be loaded: naming columns needs dlt, which takes time to import.
        tables: dict[str, TableColumns] = defaultdict(TableColumns)
        for table, source in known_sources().items():
            tables[table].see(source.columns, column_names(source.columns))
        for version in self._versions:
            is_before = version.is_current
            tables[version.raw_table].see(version.header, version.columns, is_before=is_before)
        return tables

    def name(self, step: Step) -> Step:
        """Name the columns of a file to load, and compare them with those of the file before.

        That is the one that had the same name or, for a new name, the one that was loaded last.
        Raises FileRefused where the columns are frozen and differ.
        """
        if step.scan.form == OTHER:
            return step
        table, header = self._tables[step.file.raw_table], step.scan.header
        source = known_sources().get(step.file.raw_table, Source())
        names = column_names(header, table.names)
        name = step.file.raw_table, step.file.name
        reference = self._headers_before.get(name, table.header)
        if source.columns and (source.frozen or source.any_subset):
            reference = source.columns
        changes = table.changes(header, names, reference)
        if source.any_subset:
            changes = unexpected(changes)
        if source.frozen and changes:
            raise FileRefused(
                f"its columns are frozen, and this file's differ: {changes_in_words(changes)}"
            )
        if step.status == "reloaded":
            # The same bytes bring what they brought before.
            changes = step.loaded.changes
        return replace(step, columns=tuple(names), changes=changes)

    def take(self, step: Step) -> None:
        """Take note of the columns of a file that was read to the end."""
        if step.scan.form != OTHER:
            self._tables[step.file.raw_table].see(step.scan.header, step.columns)


class _Registry:
    """The file versions of the registry that count: the current ones, and the forgotten."""

    def __init__(self, versions: list[Version]):
        self.versions = [each for each in versions if each.is_current or each.is_forgotten]
        self.by_content = {version.content: version for version in self.versions}
        self.by_name = {
            (version.raw_table, place.name): version
            for version in sorted(self.versions, key=lambda version: version.is_current)
            for place in version.places
        }
        self.owners = {version.raw_table: version.folder for version in self.versions}
        self.in_archive: dict[tuple[str, str], list[tuple[Place, Version]]] = defaultdict(list)
        for version in self.versions:
            for place in version.places:
                # A name that belongs to newer bytes says nothing of the archive as it is now.
                is_latest = self.by_name[version.raw_table, place.name] is version
                if place.compression == ZIP and is_latest:
                    for parent in PurePosixPath(place.name).parents:
                        self.in_archive[version.raw_table, str(parent)].append((place, version))

    def check_owner(self, file: LandedFile) -> None:
        """Raise FileRefused where the file's table holds the files of another folder."""
        owner = self.owners.get(file.raw_table, file.folder)
        if owner != file.folder:
            raise FileRefused(
                f"raw.{file.raw_table} holds the files of {'/'.join(owner)}: rename the folder"
            )

    def unchanged(self, file: LandedFile) -> list[_Found]:
        """Return the CSV files in a delivered file that is as it was when they were read."""
        version = self.by_name.get((file.raw_table, file.name))
        held = [
            (place, version)
            for place in (version.places if version else ())
            if place.name == file.name
        ] or self.in_archive[file.raw_table, file.name]
        if not held or not all(place.stamp.is_same(file.stamp) for place, _ in held):
            return []
        if len(held) != held[0][0].members:
            return []
        return [
            _Found(replace(file, name=place.name), version.file_id, place)
            for place, version in held
        ]

    def names_in(self, file: LandedFile) -> set[str]:
        """Return the names that a delivered file's contents had: its own, or its members'."""
        held = {place.name for place, _ in self.in_archive[file.raw_table, file.name]}
        is_known = (file.raw_table, file.name) in self.by_name
        return held | ({file.name} if is_known else set())

    def elsewhere(self, known_names: set[str], landing: Landing) -> list[_Found]:
        """Find the files of other names that still lie where and as the registry knows them."""
        return [
            _Found(landing.file(place.name), version.file_id, place)
            for version in self.versions
            for place in version.places
            if place.name not in known_names
            and self.by_name[version.raw_table, place.name] is version
            and landing.has(place)
        ]


def refusal(file: LandedFile, error: FileRefused | OSError) -> Step:
    """Return the step of a file that cannot be loaded.

    What the system says of it, such as that the disk is full, may be otherwise the next time.
    """
    may_pass = isinstance(error, Unread | OSError)
    return Step(file, "refused", note=why_refused(error), may_pass=may_pass)


def why_refused(error: FileRefused | OSError) -> str:
    """Say why a file cannot be loaded, without its name."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
