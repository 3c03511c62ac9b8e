"""What becomes of messages, whatever fails: the real handler over a warehouse in memory.

The warehouse answers as ingest/load.py does; a test compares the two.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.session import get_session
from botocore.stub import Stubber
from click.testing import CliRunner
from hypothesis import given, note, settings
from hypothesis import strategies as st

from deploy.aws import handler as function
from deploy.aws.events import uploads
from deploy.aws.handler import Message

from .conftest import PROJECT, Box, environment

LANDING = "s3://b/landing"
FOLDER = "acme/orders"
DOES_NOT_EXIST = "python: can't open file"
# What a command that goes wrong amounts to.
FAILS, KILLED_BEFORE, KILLED_AFTER = "fails", "killed before", "killed after"


class Killed(BaseException):
    """The function ends in the middle of something."""


class Version:
    """One file version in the registry; `names` are where its bytes lie."""

    def __init__(self, content: str):
        self.content = content
        self.names: list[str] = []
        self.state = "current"


class Warehouse:
    """Objects and what is loaded of them. The first letters of a content say what it does.

    good: is loaded; poison: fails a test; broken: is refused; absent: cannot be read this time;
    pdf: holds no rows.
    """

    def __init__(self, target: Path):
        self.target = target
        self.objects: dict[str, str] = {}
        self.versions: list[Version] = []
        self.published: set[str] = set()

    def current(self) -> set[str]:
        """What is in the warehouse."""
        return {each.content for each in self.versions if each.state == "current"}

    def run(self, command: str, args: tuple[str, ...]) -> tuple[int, list[dict]]:
        """Run a command; return its exit code and events."""
        if command == "publish":
            assert not any(content.startswith("poison") for content in self.current())
            self.published = self.current()
            return 0, []
        if command == "dbt":
            bad = sorted(each for each in self.current() if each.startswith("poison"))
            results = [{"unique_id": each, "status": "fail", "message": "1 row"} for each in bad]
            self.target.mkdir(exist_ok=True)
            (self.target / "run_results.json").write_text(json.dumps({"results": results}))
            return bool(bad), []
        names = [arg.removeprefix(f"{LANDING}/") for arg in args if not arg.startswith("--")]
        if "--forget" in args:
            return self.forget(names)
        [name] = names
        return self.load(name, full_refresh="--full-refresh" in args)

    def forget(self, names: list[str]) -> tuple[int, list[dict]]:
        """Take rows out, all or none."""
        # Of one name, the bytes that came last.
        found = {each.names[0]: each for each in self.versions if each.state == "current"}
        if not found.keys() >= set(names):
            return 1, [{"event": "failed", "message": f"no current file among {names}"}]
        for name in names:
            found[name].state = "forgotten"
        return 0, [{"event": "file", "file": name, "status": "forgotten"} for name in names]

    def load(self, name: str, *, full_refresh: bool) -> tuple[int, list[dict]]:
        """Load one object."""
        content = self.objects.get(name)
        if content is None:
            return 1, [{"event": "not_there", "message": f"{name} does not exist"}]
        if content.startswith("pdf"):
            return 1, [{"event": "nothing_to_load", "message": f"{name}: no file to load found"}]
        event: dict[str, Any] = {"event": "file", "file": name, "rows": 1}
        if content.startswith(("broken", "absent")):
            event |= {"status": "refused", "may_pass": content.startswith("absent")}
            return 1, [event | {"message": f"{name}: refused: {content}"}]
        live = [each for each in self.versions if each.state != "replaced"]
        loaded = next((each for each in live if each.content == content), None)
        superseded = [
            each
            for each in live
            if each is not loaded
            and each.state == "current"
            and name in each.names
            and not any(self.objects.get(other) == each.content for other in each.names)
        ]
        gave_way = any(name in each.names for each in self.versions if each.state == "replaced")
        if loaded and full_refresh:
            status = "reloaded"
        elif loaded and loaded.state == "forgotten":
            status = "forgotten"
        elif superseded:
            status = "replaced"
        else:
            status = "unchanged" if loaded else "new"
        if not loaded:
            loaded = Version(content)
            self.versions.append(loaded)
        if status != "forgotten":
            loaded.state = "current"
        others = [
            each for each in loaded.names if each != name and self.objects.get(each) == content
        ]
        loaded.names = [name, *others]
        for each in superseded:
            each.state = "replaced"
        event |= {"status": status, "file_id": content, "replaces": bool(superseded) or gave_way}
        return 0, [event | {"message": f"{name}: {status}"}]


class Pipeline(function.Pipeline):
    """The handler, with a warehouse in memory; `wrong` says what goes wrong with which command."""

    def __init__(self, warehouse: Warehouse, wrong: Callable[[str], str], dead: list, tries: int):
        self.warehouse, self.wrong, self.dead = warehouse, wrong, dead
        self.deadline, self.tries, self.names = None, tries, {}
        self.landing = LANDING
        self.environment = {"DBT_TARGET_PATH": str(warehouse.target)}

    def start(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command, or have it go wrong."""
        kind = self.wrong(command)
        if kind == KILLED_BEFORE:
            raise Killed
        if kind == FAILS:
            return subprocess.CompletedProcess([], 2, "", DOES_NOT_EXIST)
        code, events = self.warehouse.run(command, args)
        if kind == KILLED_AFTER:
            raise Killed
        return subprocess.CompletedProcess([], code, "".join(map(line, events)), "")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep nobody out."""
        yield

    def bury(self, message: Message, error: Exception) -> None:
        """Keep a dead letter."""
        if self.wrong("bury") == FAILS:
            raise ConnectionError("the queue cannot be reached")
        self.dead.append((message.id, function.reason_of(error)))


class Queue:
    """The queue, the function and the dead-letter queue. A message tells of one object each."""

    def __init__(self, target: Path, tries: int = 5):
        self.warehouse = Warehouse(target)
        self.tries = tries
        self.bodies: dict[str, str] = {}
        self.receives: dict[str, int] = {}
        self.dead: list[tuple[str, str]] = []
        self.going_wrong: list[str] = []

    def upload(self, name: str, content: str, *, times: int = 1) -> None:
        """Put an object into the bucket, which tells of it so many times."""
        self.warehouse.objects[f"{FOLDER}/{name}"] = content
        for _ in range(times):
            self.send(event(f"landing/{FOLDER}/{name}"), f"{len(self.bodies)} {name}")

    def send(self, body: str, message_id: str) -> None:
        """Put a message into the queue."""
        self.bodies[message_id] = body
        self.receives[message_id] = 0

    def deliver(self, *ids: str) -> None:
        """Call the function with some of the messages, or all."""
        for name in (ids := ids or tuple(self.receives)):
            self.receives[name] += 1
        messages = [Message(name, self.bodies[name], self.receives[name]) for name in ids]
        again = messages
        pipeline = Pipeline(self.warehouse, self.goes_wrong, self.dead, self.tries)
        with suppress(Killed):
            again = pipeline.handle(messages)
        for message in messages:
            if message not in again:
                del self.receives[message.id]
            elif message.receives > self.tries:
                # What the queue does by itself.
                del self.receives[message.id]
                self.dead.append((message.id, ""))

    def goes_wrong(self, command: str) -> str:
        """Say what is next to go wrong."""
        return self.going_wrong.pop(0) if self.going_wrong else ""

    def drain(self) -> None:
        """Deliver all that there is, until nothing is left."""
        self.going_wrong.clear()
        for _ in range(self.tries + 1):
            if self.receives:
                self.deliver()
        assert not self.receives

    def replay(self) -> None:
        """Move the dead letters back, as `start-message-move-task` does."""
        self.receives |= dict.fromkeys((name for name, _ in self.dead), 0)
        self.dead.clear()

    def dead_names(self) -> list[str]:
        """The objects that dead letters tell of."""
        return [name.split()[1] for name, _ in self.dead]


def event(key: str) -> str:
    """An event of EventBridge."""
    of = {"bucket": {"name": "b"}, "object": {"key": key}}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": of})


def line(event: dict) -> str:
    """An event as the loader writes it; messages may hold what Python takes for line ends."""
    return json.dumps({"level": "info", "message": ""} | event, ensure_ascii=False) + "\n"


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    """An empty queue and warehouse."""
    return Queue(tmp_path / "target")


def test_one_poisonous_file_among_others(queue: Queue) -> None:
    """It alone is taken out; the others are published in the same run."""
    queue.upload("a.csv", "good a")
    queue.upload("p.csv", "poison")
    queue.upload("b.csv", "good b")
    queue.upload("q.csv", "poison too")
    queue.deliver()
    assert queue.dead == [("1 p.csv", "poison: 1 row"), ("3 q.csv", "poison too: 1 row")]
    assert queue.warehouse.published == {"good a", "good b"}
    assert not queue.receives


@pytest.mark.parametrize("kind", [FAILS, KILLED_BEFORE, KILLED_AFTER])
@pytest.mark.parametrize("command", range(6))
def test_a_failure_after_each_command(kind: str, command: int, queue: Queue) -> None:
    """Of load, build, forget, build and publish: the poisonous file ends as a dead letter."""
    queue.upload("p.csv", "poison")
    queue.going_wrong = [""] * command + [kind]
    queue.deliver()
    queue.upload("a.csv", "good")
    queue.drain()
    assert queue.dead_names() == ["p.csv"]
    assert queue.warehouse.published == queue.warehouse.current() == {"good"}


@pytest.mark.parametrize("command", [1, 2, 3, 4])
def test_the_last_try_fails(command: int, queue: Queue) -> None:
    """What a dead letter brought does not stay without having been tested."""
    queue.upload("p.csv", "poison")
    queue.receives["0 p.csv"] = 4
    queue.going_wrong = [""] * command + [FAILS]
    queue.deliver()
    queue.upload("a.csv", "good")
    queue.drain()
    assert queue.dead_names() == ["p.csv"]
    assert queue.warehouse.published == {"good"}


def test_publishing_fails_after_a_message_was_given_up(queue: Queue) -> None:
    """What is a dead letter is not delivered again; what came with it is."""
    queue.upload("p.csv", "poison")
    queue.upload("a.csv", "good")
    # Two loads, a build, a forget, a build, each brought back and built, one forgotten and built.
    queue.going_wrong = [""] * 11 + [FAILS]
    queue.deliver()
    assert queue.dead_names() == ["p.csv"]
    assert [*queue.receives] == ["1 a.csv"]
    assert queue.warehouse.published == set()
    queue.drain()
    assert queue.dead_names() == ["p.csv"]
    assert queue.warehouse.published == {"good"}


def test_one_object_in_two_messages(queue: Queue) -> None:
    """Delivered again, both find its rows there, which are taken out once."""
    queue.upload("a.csv", "good", times=2)
    queue.upload("p.csv", "poison", times=2)
    queue.going_wrong = ["", "", KILLED_AFTER]
    queue.deliver("0 a.csv", "1 a.csv", "2 p.csv")
    queue.deliver()
    assert [name for name, _ in queue.dead] == ["2 p.csv", "3 p.csv"]
    assert not queue.receives
    assert queue.warehouse.published == {"good"}


def test_the_same_bytes_under_two_names(queue: Queue) -> None:
    """The registry knows them by the last name, and by that they are taken out."""
    queue.upload("p.csv", "poison")
    queue.upload("a.csv", "good")
    queue.upload("copy.csv", "poison")
    queue.deliver()
    assert queue.dead_names() == ["p.csv", "copy.csv"]
    assert queue.warehouse.published == {"good"}
    # One that comes later is another message about rows that were taken out.
    queue.upload("late.csv", "poison")
    queue.drain()
    assert queue.dead_names() == ["p.csv", "copy.csv", "late.csv"]
    assert queue.warehouse.published == {"good"}


def test_several_objects_in_one_message(queue: Queue) -> None:
    """The good one stays, though its message becomes a dead letter."""
    objects = {f"{FOLDER}/a.csv": "good", f"{FOLDER}/p.csv": "poison", f"{FOLDER}/b.csv": "broken"}
    queue.warehouse.objects = dict(objects)
    records = [
        {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": {"key": f"landing/{name}"}},
        }
        for name in objects
    ]
    queue.send(json.dumps({"Records": records}), "all")
    queue.deliver()
    assert queue.dead == [("all", f"{FOLDER}/b.csv: refused: broken")]
    assert queue.warehouse.published == {"good"}


def test_a_dead_letter_is_replayed_once_the_model_is_mended(queue: Queue) -> None:
    """Moved back to the queue, it brings back what was taken out."""
    queue.upload("p.csv", "poison")
    queue.deliver()
    assert queue.warehouse.published == set()
    queue.replay()
    [version] = queue.warehouse.versions
    version.content = queue.warehouse.objects[f"{FOLDER}/p.csv"] = "good after all"
    queue.deliver()
    assert queue.dead == []
    assert queue.warehouse.published == {"good after all"}


def test_a_poisonous_new_version_stays_until_it_is_mended(queue: Queue) -> None:
    """Without it there would be neither. What waits for that is replayed afterwards."""
    queue.upload("a.csv", "good")
    queue.deliver()
    queue.upload("a.csv", "poison")
    queue.upload("b.csv", "good too")
    queue.drain()
    assert queue.dead_names() == ["a.csv", "b.csv"]
    assert queue.warehouse.published == {"good"}
    assert queue.warehouse.current() == {"poison"}
    queue.replay()
    queue.upload("a.csv", "good again")
    queue.drain()
    assert queue.dead == []
    assert queue.warehouse.published == {"good again", "good too"}


def test_a_new_version_comes_between_two_loads_of_a_run(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What took the place of the first is not taken out in its stead."""
    queue.upload("a.csv", "good", times=2)
    queue.upload("p.csv", "poison")
    load = Warehouse.load

    def and_then(self: Warehouse, name: str, *, full_refresh: bool) -> tuple[int, list[dict]]:
        answer = load(self, name, full_refresh=full_refresh)
        self.objects[f"{FOLDER}/a.csv"] = "good again"
        return answer

    monkeypatch.setattr(Warehouse, "load", and_then)
    queue.deliver()
    assert queue.dead_names() == ["p.csv"]
    assert queue.warehouse.published == {"good again"}
    assert [each.state for each in queue.warehouse.versions] == ["replaced", "current", "forgotten"]


def test_what_is_no_file_to_load(queue: Queue) -> None:
    """Left alone: a PDF, and what is gone. Given back: what may be read the next time."""
    queue.upload("scan.pdf", "pdf")
    queue.upload("gone.csv", "good")
    del queue.warehouse.objects[f"{FOLDER}/gone.csv"]
    queue.deliver()
    assert not queue.receives
    assert queue.warehouse.published == set()
    queue.upload("a.csv", "absent")
    queue.deliver()
    assert [*queue.receives] == ["2 a.csv"]
    assert queue.dead == []
    queue.drain()
    assert queue.dead == [("2 a.csv", f"{FOLDER}/a.csv: refused: absent")]


def test_a_message_that_nobody_foresaw(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up none of those that came with it."""
    queue.upload("a.csv", "good")
    queue.upload("odd.csv", "good, too")
    queue.upload("b.csv", "good as well")
    load = Warehouse.load

    def odd(self: Warehouse, name: str, *, full_refresh: bool) -> tuple[int, list[dict]]:
        if "odd" in name:
            raise ValueError("embedded null byte")
        return load(self, name, full_refresh=full_refresh)

    monkeypatch.setattr(Warehouse, "load", odd)
    queue.deliver()
    assert [*queue.receives] == ["1 odd.csv"]
    assert queue.warehouse.published == {"good", "good as well"}
    queue.drain()
    assert queue.dead == [("1 odd.csv", "ValueError: embedded null byte")]


def test_lines_end_at_line_feeds_alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason that quotes a file may hold other characters that Python takes for line ends."""
    found = "found \x85 and \u2028"
    answer = {"event": "file", "file": "x", "status": "refused", "may_pass": False, "rows": 0}
    monkeypatch.setattr(Warehouse, "load", lambda *_, **__: (1, [answer | {"message": found}]))
    queue.upload("a.csv", "")
    queue.deliver()
    assert queue.dead == [("0 a.csv", found)]


kinds = st.sampled_from(["", "", "", "", FAILS, KILLED_BEFORE, KILLED_AFTER])
# What comes under one name after another. A poisonous file takes the place of nothing, here, and is
# under no other name: docs/decisions.md says which of these stay until they are mended.
lives = st.tuples(
    *(
        st.lists(st.sampled_from([f"{kind} 0", f"{kind} 1"]), max_size=most)
        for kind, most in (("broken", 1), ("poison", 1), ("good", 2))
    )
).map(lambda parts: [content for part in parts for content in part])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_happens_good_files_are_loaded_and_others_are_dead_letters(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Deliveries in any order, several times, of which some fail or are killed at any command."""
    queue = Queue(tmp_path_factory.getbasetemp() / "target")
    names = ("a.csv", "b.csv", "c.csv")
    waiting = []
    for name in names:
        life = data.draw(lives, name)
        waiting.append((name, iter([each.replace("poison", f"poison {name}") for each in life])))
    for turn in range(data.draw(st.integers(1, 8))):
        for name, contents in data.draw(st.lists(st.sampled_from(waiting), max_size=3)):
            if content := next(contents, None):
                queue.upload(name, content, times=data.draw(st.integers(1, 2)))
        if queue.receives:
            note(f"in the queue: {queue.receives}")
            ids = st.lists(st.sampled_from(sorted(queue.receives)), min_size=1, unique=True)
            # A message that is killed at each try is given up by the queue itself.
            queue.going_wrong = data.draw(st.lists(kinds, max_size=12)) if turn < 4 else []
            queue.deliver(*data.draw(ids))
    for name, contents in waiting:
        for content in contents:
            queue.upload(name, content)
    check(queue)
    # So are those whose tries were over before somebody else's failure was mended.
    queue.replay()
    check(queue)
    lie_there = queue.warehouse.objects.items()
    assert set(queue.dead_names()) <= {
        name.removeprefix(f"{FOLDER}/") for name, content in lie_there if "good" not in content
    }
    assert queue.warehouse.published >= {
        content for content in queue.warehouse.objects.values() if "good" in content
    }


def check(queue: Queue) -> None:
    """Assert what holds once nothing is left in the queue."""
    queue.drain()
    objects = queue.warehouse.objects
    assert len({name for name, _ in queue.dead}) == len(queue.dead)
    assert not any("poison" in content for content in queue.warehouse.current())
    dead = {objects[f"{FOLDER}/{name}"] for name in queue.dead_names()}
    missing = set(objects.values()) - queue.warehouse.current()
    assert missing <= dead
    if not queue.dead:
        assert queue.warehouse.published == queue.warehouse.current()


def test_the_warehouse_in_memory_answers_as_the_loader_does(tmp_path: Path) -> None:
    """The same steps, by the real loader into DuckDB: the events have the same facts."""
    box = Box(tmp_path / "landing", tmp_path / "warehouse.duckdb")
    box.landing.mkdir()
    fake = Warehouse(tmp_path / "target")

    def answers(*args: str) -> tuple[list, list]:
        """What both say to the same arguments, in which `{}` stands for the folder."""
        real = box.run("--json", *(arg.format(box.landing / FOLDER) for arg in args))
        code, events = fake.run("load", tuple(arg.format(f"{LANDING}/{FOLDER}") for arg in args))
        of_real = [json.loads(each) for each in real.stdout.split("\n") if each]
        ids = {hashlib.sha256(body(each)).hexdigest(): each for each in fake.objects.values()}
        told = [
            [
                (
                    each["event"],
                    each.get("file"),
                    each.get("status"),
                    ids.get(each.get("file_id"), each.get("file_id")),
                    each.get("replaces"),
                    each.get("may_pass"),
                )
                for each in events
                if each["event"] in ("file", "failed", "not_there", "nothing_to_load")
            ]
            for events in (of_real, events)
        ]
        # What was taken out is not looked at again: of these events, only names and status count.
        if "--forget" in args:
            told = [[each[:3] for each in events] for events in told]
        return (real.returncode, told[0]), (code, told[1])

    def body(content: str) -> bytes:
        return b"a,b\x00\n1,2\n" if content == "broken" else f"a,b\n1,{content}\n".encode()

    def put(name: str, content: str) -> None:
        fake.objects[f"{FOLDER}/{name}"] = content
        box.write(f"{FOLDER}/{name}", body(content))

    def same(*args: str) -> list[str]:
        """Assert that both say the same; return the statuses."""
        real, in_memory = answers(*args)
        assert real == in_memory
        return [event[2] or event[0] for event in real[1]]

    assert same("{}/a.csv") == ["not_there"]
    put("scan.pdf", "pdf")
    assert same("{}/scan.pdf") == ["nothing_to_load"]
    put("broken.csv", "broken")
    assert same("{}/broken.csv") == ["refused"]
    put("a.csv", "one")
    assert same("{}/a.csv") == ["new"]
    assert same("{}/a.csv") == ["unchanged"]
    put("copy.csv", "one")
    assert same("{}/copy.csv") == ["unchanged"]
    # Now the rows are under the copy's name.
    assert same("--forget", f"{FOLDER}/a.csv") == ["failed"]
    assert same("--forget", f"{FOLDER}/copy.csv") == ["forgotten"]
    assert same("{}/a.csv") == ["forgotten"]
    assert same("--full-refresh", "{}/a.csv") == ["reloaded"]
    put("b.csv", "two")
    assert same("{}/b.csv") == ["new"]
    put("b.csv", "three")
    assert same("{}/b.csv") == ["replaced"]
    assert same("{}/b.csv") == ["unchanged"]
    assert same("--forget", f"{FOLDER}/a.csv", "--forget", f"{FOLDER}/b.csv") == ["forgotten"] * 2
    put("b.csv", "four")
    assert same("{}/b.csv") == ["new"]
    # The registry has these bytes by the name of the copy, which gets others.
    put("c.csv", "five")
    assert same("{}/c.csv") == ["new"]
    put("copy.csv", "five")
    assert same("{}/copy.csv") == ["unchanged"]
    put("copy.csv", "six")
    assert same("{}/copy.csv") == ["new"]
    assert same("--forget", f"{FOLDER}/copy.csv") == ["forgotten"]
    assert same("{}/c.csv") == ["unchanged"]


def test_a_file_that_cannot_be_read_may_be_another_time(tmp_path: Path) -> None:
    """The real loader says so of what the system refuses, and of nothing else."""
    box = Box(tmp_path / "landing", tmp_path / "warehouse.duckdb")
    box.write(f"{FOLDER}/broken.csv", b"a,b\x00\n1,2\n")
    (box.landing / FOLDER / "loop.csv").symlink_to("loop.csv")
    result = box.run("--json")
    events = [json.loads(each) for each in result.stdout.split("\n") if each]
    refused = {each["file"]: each["may_pass"] for each in events if each["event"] == "file"}
    assert refused == {f"{FOLDER}/broken.csv": False, f"{FOLDER}/loop.csv": True}


def test_dead_letters_have_a_reason_that_the_queue_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control characters, which SQS refuses; it is cut. The real client checks the rest."""
    client = get_session().create_client(
        "sqs", region_name="eu-west-1", aws_access_key_id="-", aws_secret_access_key="-"
    )
    reason = {"DataType": "String", "StringValue": "found a NUL   and more" + "x" * 978}
    expected = {
        "QueueUrl": "http://queue",
        "MessageBody": "{",
        "MessageAttributes": {"reason": reason},
    }
    monkeypatch.setenv("ONTIME_DEAD_LETTERS", "http://queue")
    monkeypatch.setattr(
        function, "get_session", lambda: SimpleNamespace(create_client=lambda _: client)
    )
    error = function.Refused("found a NUL \x00 and more" + "x" * 2_000)
    with Stubber(client) as stubber:
        stubber.add_response("send_message", {"MessageId": "1"}, expected)
        pipeline = object.__new__(function.Pipeline)
        pipeline.bury(Message("1", "{"), error)
        stubber.assert_no_pending_responses()


def test_the_password_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands get user and password of the secret, by the names that PostgreSQL knows."""
    client = get_session().create_client(
        "secretsmanager", region_name="eu-west-1", aws_access_key_id="-", aws_secret_access_key="-"
    )
    secret = {"SecretString": '{"username": "ontime", "password": "p"}'}
    monkeypatch.setenv("ONTIME_SECRET", "arn:secret")
    monkeypatch.setenv("ONTIME_LANDING", LANDING)
    monkeypatch.setattr(
        function, "get_session", lambda: SimpleNamespace(create_client=lambda _: client)
    )
    with Stubber(client) as stubber:
        stubber.add_response("get_secret_value", secret, {"SecretId": "arn:secret"})
        found = function.Pipeline().environment
    assert (found["PGUSER"], found["PGPASSWORD"]) == ("ontime", "p")


def test_all_commands_together_have_the_time_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes too long is ended, and none is started after it."""
    monkeypatch.setenv("ONTIME_LANDING", LANDING)
    monkeypatch.setitem(function.COMMANDS, "publish", ["-c", "import time; time.sleep(600)"])
    monkeypatch.setitem(function.COMMANDS, "load", ["-c", "raise SystemExit('was started')"])
    pipeline = function.Pipeline(seconds=1)
    with pytest.raises(function.Failed, match="publish took longer than the 1 s that were left"):
        pipeline.start("publish")
    with pytest.raises(function.Failed, match="no time was left for load"):
        pipeline.start("load")


class Waits:
    """A task's pipeline, which another run keeps out `busy` times."""

    def __init__(self, busy: int, monkeypatch: pytest.MonkeyPatch):
        self.busy, self.slept, self.messages = busy, 0, []
        monkeypatch.setattr(function, "Pipeline", self.pipeline)
        monkeypatch.setattr(function.time, "sleep", self.sleep)

    def pipeline(self, tries: int = 0) -> "Waits":
        """Make the one that there is."""
        self.tries = tries
        return self

    def sleep(self, seconds: int) -> None:
        """Wait for nothing."""
        self.slept += 1

    def run(self, name: str) -> None:
        """Run what a schedule asks for."""
        if self.slept < self.busy:
            raise function.Busy("another run")

    def handle(self, messages: list[Message]) -> list[Message]:
        """Handle the one message of a task."""
        self.messages += messages
        return messages if self.slept < self.busy else []


def test_a_task_counts_its_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the rows that an earlier try loaded are known as its own, and the last try as the last."""
    waits = Waits(2, monkeypatch)
    result = CliRunner().invoke(function.main, ["upload", "b", "landing/acme/orders/a b.csv"])
    assert result.exit_code == 0, result.output
    assert [each.receives for each in waits.messages] == [1, 2, 3]
    assert waits.tries == function.TRIES
    [upload] = uploads(waits.messages[0].body)
    assert upload.url == "s3://b/landing/acme/orders/a b.csv"


@pytest.mark.parametrize(("busy", "code", "slept"), [(0, 0, 0), (3, 0, 3), (1_000, 1, 59)])
def test_the_nightly_task_waits_for_its_turn(
    busy: int, code: int, slept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night has its full test, though an upload is handled when it begins."""
    waits = Waits(busy, monkeypatch)
    assert CliRunner().invoke(function.main, ["nightly"]).exit_code == code
    assert waits.slept == slept


def test_other_failures_of_a_schedule_end_its_run(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands run in their order, up to the first that fails."""
    queue.upload("p.csv", "poison")
    queue.warehouse.load(f"{FOLDER}/p.csv", full_refresh=False)
    ran = []
    pipeline = Pipeline(queue.warehouse, lambda command: ran.append(command) or "", [], 5)
    with pytest.raises(function.Failed, match="dbt build: "):
        pipeline.run("nightly")
    assert ran == ["dbt"]
    queue.warehouse.forget([f"{FOLDER}/p.csv"])
    pipeline.run("nightly")
    assert ran == ["dbt", "dbt", "dbt", "publish"]
    monkeypatch.setattr(Pipeline, "alone", None)
    pipeline.run("freshness")
    with pytest.raises(function.Failed, match="'weekly' is no run: expected one of freshness, "):
        pipeline.run("weekly")


NO_SEMAPHORES = """
import _multiprocessing, errno, runpy, sys
class SemLock:
    SEM_VALUE_MAX = 1
    def __init__(self, *args, **kwargs): raise OSError(errno.ENOSYS, "Function not implemented")
_multiprocessing.SemLock = SemLock
sys.path[0] = "."
"""


def test_commands_start_where_there_are_no_semaphores(tmp_path: Path) -> None:
    """As in Lambda, which has no /dev/shm; dbt by itself fails there."""
    box = Box(tmp_path / "landing", tmp_path / "warehouse.duckdb")
    box.write(f"{FOLDER}/a.csv", "a,b\n1,2\n")
    load = NO_SEMAPHORES + "from ingest.load import main; main()"
    result = box.run("--json", command=(sys.executable, "-c", load), cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    target = str(tmp_path / "target")
    variables = environment(box.database, DBT_TARGET_PATH=target, DBT_LOG_PATH=target)
    results = [
        subprocess.run(
            [
                sys.executable,
                "-c",
                NO_SEMAPHORES + f"runpy.run_module({module!r}, run_name='__main__')",
                *("--no-use-colors", "run", "--select", "stg_nycflights13__airlines"),
            ],
            cwd=PROJECT,
            env=variables,
            capture_output=True,
            text=True,
        )
        for module in ("dbt.cli.main", "deploy.aws.run_dbt")
    ]
    assert results[0].returncode != 0
    assert "Function not implemented" in results[0].stdout + results[0].stderr
    assert results[1].returncode == 0, results[1].stdout + results[1].stderr
    assert "Completed successfully" in results[1].stdout
