"""Load, build and publish what came into the landing zone. AWS Lambda calls `handler`.

\b
    python deploy/aws/handler.py upload BUCKET KEY     one object: what a Fargate task runs
    python deploy/aws/handler.py freshness             when was each source last loaded
    python deploy/aws/handler.py nightly               build what is due, test everything, publish

It runs the project's own commands, ingest/load.py, dbt and ingest/publish.py, each as a process of
its own, and decides what becomes of a message when one of them fails:

- what can never succeed (a refused file, a message that is no event, a file whose values fail a
  test) goes to the dead-letter queue at once, with the reason as an attribute of the message;
- anything else is reported as failed, so that the queue delivers it again; the last time, it goes
  to the dead-letter queue with its reason, too.

Nothing depends on the order of messages or on how often one comes: an event is only the occasion to
look at an object, the loader knows bytes that it has loaded, and dbt knows which months are due. An
event about rows that were taken out brings them back, to be tested anew: so it is where a run was
killed after it had taken them out, and where a dead letter is moved back to the queue.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `deploy` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import click
import psycopg2
from botocore.session import get_session

from deploy.aws.events import NotAnEvent, Upload, uploads

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "load": ["ingest/load.py"],
    "publish": ["ingest/publish.py"],
    "dbt": ["-m", "deploy.aws.run_dbt", "--no-use-colors"],
}
RUNS = {
    "freshness": [("dbt", "source", "freshness")],
    "nightly": [("dbt", "build"), ("dbt", "test"), ("publish",)],
}
# Another one than that of a load, which each load takes itself.
LOCK = int.from_bytes(b"pipe")
# What is left of the function's time for telling what became of it.
SPARE_SECONDS = 20
# A task has nobody who delivers its event again: it waits itself, such as for another's lock.
TRIES, PAUSE_SECONDS = 60, 120
# Attributes and texts of messages are limited; the whole reason is in the log.
REASON_CHARACTERS = 1_000

# Raw table and SHA-256 of a file.
Content = tuple[str, str]
Event = dict[str, Any]


class Refused(Exception):
    """What a message brings can never be loaded as it is; the text says why."""


class Failed(Exception):
    """Something else went wrong, and may go right the next time."""


class Busy(Failed):
    """Another run of the pipeline goes on."""


class TestsFailed(Exception):
    """Rows that are loaded fail tests; the text names them."""


@dataclass(eq=False)
class Message:
    """A message of the queue, what it brought, what becomes of it, and why.

    `tables` have rows of its objects, as dbt names sources; `files` are those that it told of, and
    `brought`, object by object, those that can be taken out again: that were not there before.
    """

    id: str
    body: str
    receives: int = 1
    tables: set[str] = field(default_factory=set)
    files: set[Content] = field(default_factory=set)
    brought: dict[Upload, set[Content]] = field(default_factory=dict)
    fate: Literal["done", "again", "dead"] = "done"
    error: Exception | None = None


def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle a batch of the queue's messages, or one of the schedules' events ({"run": name}).

    Returns which messages are to be delivered again, as Lambda expects it. A schedule's run that
    fails raises Failed.
    """
    pipeline = Pipeline(seconds=context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS)
    if "Records" not in event:
        pipeline.run(event["run"])
        return None
    messages = [
        Message(
            record["messageId"],
            record["body"],
            int(record["attributes"]["ApproximateReceiveCount"]),
        )
        for record in event["Records"]
    ]
    again = pipeline.handle(messages)
    return {"batchItemFailures": [{"itemIdentifier": message.id} for message in again]}


class Pipeline:
    """The project's commands, with the settings of the environment.

    All together may take `seconds`; a message is tried `tries` times.
    """

    def __init__(self, *, seconds: float | None = None, tries: int | None = None):
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.tries = tries or int(os.environ.get("ONTIME_MAX_RECEIVES", "5"))
        # In the image it is a link into /tmp, which is empty at first.
        (PROJECT / "warehouse").resolve().mkdir(parents=True, exist_ok=True)
        self.landing = os.environ["ONTIME_LANDING"]
        self.environment = os.environ | self._password()
        # What is in the warehouse of what this run looked at, by the name that the registry has: of
        # bytes that lie in two places, it is the one that was looked at last.
        self.names: dict[Content, str] = {}

    def _password(self) -> dict[str, str]:
        """Read the user and password of the database, anew each time: they are changed."""
        if not (secret := os.environ.get("ONTIME_SECRET")):
            return {}
        answer = get_session().create_client("secretsmanager").get_secret_value(SecretId=secret)
        found = json.loads(answer["SecretString"])
        return {"PGUSER": found["username"], "PGPASSWORD": found["password"]}

    def run(self, name: str) -> None:
        """Run what a schedule asks for. Raises Failed."""
        if name not in RUNS:
            raise Failed(f"{name!r} is no run: expected one of {', '.join(RUNS)}")
        # To look when sources were loaded disturbs nobody.
        with nullcontext() if name == "freshness" else self.alone():
            for command, *args in RUNS[name]:
                done = self.start(command, *args)
                if done.returncode:
                    raise Failed(f"{command} {' '.join(args)}: {last_lines(done)}")
        say("done", run=name)

    def handle(self, messages: list[Message]) -> list[Message]:
        """Load what messages tell of, then build and publish; return those to deliver again."""
        # Whatever happens, each message is answered for: one that ends the function with an error
        # would keep back those that came with it, again and again.
        try:
            with self.alone():
                for message in messages:
                    try:
                        self.load(message)
                    except (NotAnEvent, Refused) as error:
                        self.give_up(message, error)
                    except Exception as error:
                        self.give_back([message], error)
                # What else a message told of may have been loaded, whatever became of it.
                if loaded := [message for message in messages if message.tables]:
                    self.settle(loaded)
        except Exception as error:
            self.give_back(messages, error)
        # Last, since a run that is killed before is repeated as a whole.
        for message in messages:
            if message.fate == "dead":
                self.try_to_bury(message)
        return [message for message in messages if message.fate == "again"]

    def settle(self, loaded: list[Message]) -> None:
        """Build and publish what messages brought."""
        try:
            self.build_good(loaded)
            self.publish()
        except Exception as error:
            self.give_back(loaded, error)

    def build_good(self, loaded: list[Message]) -> None:
        """Build what messages brought; take out whatever fails the tests."""
        try:
            try:
                self.build(loaded)
            except TestsFailed as error:
                self.sort_out(loaded, error)
        except Exception:
            # What was never seen to pass the tests would block others, and nobody would own it.
            for message in loaded:
                if message.receives >= self.tries:
                    self.forget(set().union(*message.brought.values()))
            raise

    def sort_out(self, loaded: list[Message], error: Exception) -> None:
        """Find out whose rows fail the tests, and take these out, so that they block nobody.

        All are taken out and brought back object by object. Rows that took the place of others
        stay: without them there would be none. Raises TestsFailed where the tests fail without
        them.
        """
        owners: dict[Content, tuple[Message, Upload]] = {}
        for message in loaded:
            for upload, files in message.brought.items():
                for file in files & self.names.keys():
                    owners.setdefault(file, (message, upload))
        if not owners:
            raise error
        self.forget(set(owners))
        self.build(loaded)
        suspects = list(dict.fromkeys(owners.values()))
        for message, upload in suspects:
            if len(suspects) > 1:
                try:
                    self.load_one(upload, message)
                    self.build([message])
                    continue
                except (TestsFailed, Refused) as own:
                    error = own
                    self.forget(message.brought[upload])
                    self.build([message])
            # Others may have told of the same bytes.
            for other in loaded:
                if other is message or other.files & message.brought[upload]:
                    self.give_up(other, error)

    def load(self, message: Message) -> None:
        """Load the objects that a message tells of. Raises NotAnEvent, Refused and Failed."""
        refused = []
        for upload in uploads(message.body):
            try:
                self.load_one(upload, message)
            except Refused as error:
                refused.append(str(error))
        if refused:
            raise Refused("; ".join(refused))

    def load_one(self, upload: Upload, message: Message) -> None:
        """Load one object, and note what came of it. Raises Refused and Failed."""
        table = table_of(upload, self.landing)
        if not table:
            say("left alone, not below the landing zone's <source>/<table>/", upload=upload.url)
            return
        files = self.files_of(upload.url)
        if any(file["status"] == "forgotten" for file in files):
            files = self.files_of("--full-refresh", upload.url)
        for file in files:
            say(file["message"], upload=upload.url, version=upload.version, rows=file["rows"])
        # What lies there already may be what an earlier try loaded, and never settled.
        arrived = {"new", "reloaded"} | ({"unchanged"} if message.receives > 1 else set())
        message.brought[upload] = set()
        for file in files:
            if content := file.get("file_id"):
                message.files.add((table, content))
                self.names = {key: name for key, name in self.names.items() if name != file["file"]}
                self.names[table, content] = file["file"]
                if file["status"] in arrived and not file["replaces"]:
                    message.brought[upload].add((table, content))
        refused = [file for file in files if file["status"] == "refused"]
        if len(refused) < len(files):
            message.tables.add(table)
        if any(file["may_pass"] for file in refused):
            raise Failed("; ".join(file["message"] for file in refused))
        if refused:
            raise Refused("; ".join(file["message"] for file in refused))

    def files_of(self, *args: str) -> list[Event]:
        """Run a load; return its events about files. Raises Failed where it came to none."""
        done = self.start("load", "--json", *args)
        # By line feeds alone: texts hold other characters that Python takes for line ends.
        events = [json.loads(line) for line in done.stdout.split("\n") if line.strip()]
        files = [event for event in events if event["event"] == "file"]
        ends = [event for event in events if event["event"] in ("not_there", "nothing_to_load")]
        for event in ends:
            say(event["message"])
        if done.returncode and not ends and not (done.returncode == 1 and files):
            failed = [event["message"] for event in events if event["event"] == "failed"]
            raise Failed("; ".join(failed) or last_lines(done))
        return files

    def forget(self, files: set[Content]) -> None:
        """Take out the rows of those of these files that are in the warehouse. Raises Failed."""
        if names := {file: self.names[file] for file in files & self.names.keys()}:
            self.files_of(*(part for name in names.values() for part in ("--forget", name)))
            self.names = {file: name for file, name in self.names.items() if file not in names}

    def build(self, messages: list[Message]) -> None:
        """Build and test what hangs on the tables that messages brought rows to.

        Raises TestsFailed where tests fail and nothing else, Failed for everything else.
        """
        tables = sorted(set().union(*(message.tables for message in messages)))
        chosen = [f"@source:{table}" for table in tables]
        results = Path(self.environment.get("DBT_TARGET_PATH", PROJECT / "target"))
        results /= "run_results.json"
        results.unlink(missing_ok=True)
        done = self.start("dbt", "build", "--select", *chosen, "source:ingest+")
        if done.returncode == 0:
            return
        if done.returncode != 1 or not results.exists():
            raise Failed(last_lines(done))
        found = json.loads(results.read_text())["results"]
        bad = [result for result in found if result["status"] in ("fail", "error")]
        reason = "; ".join(f"{result['unique_id']}: {result['message']}" for result in bad)
        if not bad or any(result["status"] == "error" for result in bad):
            raise Failed(reason or last_lines(done))
        raise TestsFailed(reason)

    def publish(self) -> None:
        """Publish the marts. Raises Failed."""
        done = self.start("publish")
        if done.returncode:
            raise Failed(last_lines(done))

    def start(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project. Raises Failed where the run's time is over."""
        left = self.deadline and self.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise Failed(f"no time was left for {command}")
        try:
            done = subprocess.run(
                [sys.executable, *COMMANDS[command], *args],
                cwd=PROJECT,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=left,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{command} took longer than the {left:.0f} s that were left") from None
        say("ran", command=[command, *args], exit_code=done.returncode)
        return done

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out for as long as the block takes. Raises Busy where one goes on,
        Failed where the database cannot be reached."""
        own = {name: self.environment.get(f"PG{name.upper()}") for name in ("user", "password")}
        try:
            connection = psycopg2.connect(connect_timeout=15, application_name="pipeline", **own)
        except psycopg2.Error as error:
            raise Failed(f"no connection to PostgreSQL: {' '.join(str(error).split())}") from None
        with closing(connection):
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select pg_try_advisory_lock(%s)", [LOCK])
                if not cursor.fetchone()[0]:
                    raise Busy("another run of the pipeline goes on")
                yield

    def give_back(self, messages: list[Message], error: Exception) -> None:
        """Have messages delivered again; give up those whose tries are over."""
        for message in messages:
            if message.receives >= self.tries:
                self.give_up(message, error)
            elif message.fate != "dead":
                say("failed", level="error", message=message.id, reason=reason_of(error))
                message.fate = "again"

    def give_up(self, message: Message, error: Exception) -> None:
        """Have a message go to the dead-letter queue, for the first reason that there is."""
        if message.fate != "dead":
            message.fate, message.error = "dead", error

    def try_to_bury(self, message: Message) -> None:
        """Send a message to the dead-letter queue, or have it delivered again."""
        reason = reason_of(message.error)
        say("to the dead-letter queue", level="error", message=message.id, reason=reason)
        try:
            self.bury(message, message.error)
        except Exception as error:
            say("failed", level="error", message=message.id, reason=reason_of(error))
            message.fate = "again"

    def bury(self, message: Message, error: Exception) -> None:
        """Send a message to the dead-letter queue, with the reason."""
        # SQS takes no control characters.
        reason = "".join(each if each.isprintable() else " " for each in reason_of(error))
        get_session().create_client("sqs").send_message(
            QueueUrl=os.environ["ONTIME_DEAD_LETTERS"],
            MessageBody=message.body or "{}",
            MessageAttributes={
                "reason": {"DataType": "String", "StringValue": reason[:REASON_CHARACTERS]}
            },
        )


def table_of(upload: Upload, landing: str) -> str:
    """Return an object's table as dbt names its source; blank where it lies somewhere else."""
    if not upload.url.startswith(f"{landing}/"):
        return ""
    parts = PurePosixPath(upload.url.removeprefix(f"{landing}/")).parts
    if len(parts) < 3 or upload.key.endswith("/") or any(part.startswith(".") for part in parts):
        return ""
    return f"{parts[0]}.{parts[1]}"


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what a command said, for a reason."""
    return " / ".join((done.stderr or done.stdout).strip().splitlines()[-5:]) or (
        f"exit code {done.returncode}"
    )


def reason_of(error: Exception) -> str:
    """Return what an error says; of one that nobody foresaw, also its kind."""
    if isinstance(error, (Failed, NotAnEvent, Refused, TestsFailed)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def say(what: str, level: str = "info", **facts: object) -> None:
    """Write one line of the log, as JSON."""
    print(json.dumps({"level": level, "event": what, **facts}), flush=True)


@click.group(help=__doc__)
def main() -> None:
    """Run as a task."""


@main.command()
@click.argument("bucket")
@click.argument("key")
def upload(bucket: str, key: str) -> None:
    """Load, build and publish one object, however long it takes."""
    of = {"bucket": {"name": bucket}, "object": {"key": key}}
    body = {"source": "aws.s3", "detail-type": "Object Created", "detail": of}
    for attempt in range(1, TRIES + 1):
        message = Message("task", json.dumps(body), receives=attempt)
        if not Pipeline(tries=TRIES).handle([message]):
            return
        time.sleep(PAUSE_SECONDS)


@main.command()
def freshness() -> None:
    """Fail where a source was not loaded for longer than it should."""
    run_task("freshness")


@main.command()
def nightly() -> None:
    """Build what is due, test everything and publish."""
    run_task("nightly")


def run_task(name: str) -> None:
    """Run what a schedule asks for, after another run where one goes on; exit with 1 on failure."""
    for attempt in range(1, TRIES + 1):
        try:
            Pipeline().run(name)
            return
        except Failed as error:
            say("failed", level="error", run=name, reason=str(error))
            if attempt == TRIES or not isinstance(error, Busy):
                sys.exit(1)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
