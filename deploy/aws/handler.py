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
look at an object, the loader knows bytes that it has loaded, and dbt knows which months are due.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

if __name__ == "__main__":
    # Run as a script, Python looks for modules in this folder; `deploy` itself lies above it.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import click
import psycopg2
from botocore.session import get_session

from deploy.aws.events import NotAnEvent, Upload, uploads

PROJECT = Path(__file__).resolve().parents[2]
# Another one than that of a load, which each load takes itself.
LOCK = int.from_bytes(b"pipe")
LOADED = ("new", "reloaded")
# What is left of the function's time for telling what became of it.
SPARE_SECONDS = 20
# A task has nobody who delivers its event again: it waits itself, such as for another's lock.
TRIES, PAUSE_SECONDS = 60, 120
# Attributes and texts of messages are limited; the whole reason is in the log.
REASON_CHARACTERS = 1_000


class Refused(Exception):
    """What a message brings can never be loaded as it is; the text says why."""


class Failed(Exception):
    """Something else went wrong, and may go right the next time."""


class TestsFailed(Exception):
    """Rows that are loaded fail tests; the text names them."""


@dataclass
class Message:
    """A message of the queue, what it brought, and what became of it.

    `files` are the names in raw.landed_files of what was loaded for it and was not there before.
    """

    id: str
    body: str
    receives: int = 1
    files: list[str] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """Handle a batch of the queue's messages, or one of the schedules' events ({"run": name}).

    Returns which messages are to be delivered again, as Lambda expects it. A schedule's run that
    fails raises Failed.
    """
    seconds = context.get_remaining_time_in_millis() // 1000 - SPARE_SECONDS
    pipeline = Pipeline(timeout=seconds)
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
    failed = pipeline.handle(messages)
    return {"batchItemFailures": [{"itemIdentifier": message.id} for message in failed]}


class Pipeline:
    """The project's commands, with the settings of the environment; `timeout` is in seconds."""

    def __init__(self, timeout: int | None = None):
        self.timeout = timeout
        # In the image it is a link into /tmp, which is empty at first.
        (PROJECT / "warehouse").resolve().mkdir(parents=True, exist_ok=True)
        self.landing = os.environ["ONTIME_LANDING"]
        self.environment = os.environ | self._password()

    def _password(self) -> dict[str, str]:
        """Read the user and password of the database, anew each time: they are changed."""
        if not (secret := os.environ.get("ONTIME_SECRET")):
            return {}
        answer = get_session().create_client("secretsmanager").get_secret_value(SecretId=secret)
        found = json.loads(answer["SecretString"])
        return {"PGUSER": found["username"], "PGPASSWORD": found["password"]}

    def run(self, name: str) -> None:
        """Run what a schedule asks for. Raises Failed."""
        steps = {
            "freshness": [("dbt", "source", "freshness")],
            "nightly": [("dbt", "build"), ("dbt", "test"), ("publish",)],
        }
        if name not in steps:
            raise Failed(f"{name!r} is no run: expected one of {', '.join(steps)}")
        with self.alone():
            for command, *args in steps[name]:
                done = self.start(command, *args)
                if done.returncode:
                    raise Failed(f"{command} {' '.join(args)}: {last_lines(done)}")
        say("done", run=name)

    def handle(self, messages: list[Message]) -> list[Message]:
        """Load what messages tell of, then build and publish; return those to deliver again."""
        again = []
        try:
            with self.alone():
                loaded = []
                for message in messages:
                    try:
                        if self.load(message):
                            loaded.append(message)
                    except (NotAnEvent, Refused) as error:
                        # What else it told of may have been loaded, and is built with the rest.
                        self.bury(message, error)
                        if message.tables:
                            loaded.append(Message("", "", tables=message.tables))
                    except Failed as error:
                        again += self.give_back([message], error)
                again += self.settle(loaded)
        except Failed as error:
            handled = [message for message in messages if message not in again]
            again += self.give_back(handled, error)
        return [message for message in again if message.id]

    def settle(self, loaded: list[Message]) -> list[Message]:
        """Build and publish; take out whatever fails the tests. Return what to deliver again."""
        if not loaded:
            return []
        try:
            try:
                self.build(loaded)
            except TestsFailed as error:
                self.sort_out(loaded, error)
            self.publish()
        except (Failed, TestsFailed) as error:
            return self.give_back(loaded, error)
        return []

    def sort_out(self, loaded: list[Message], error: TestsFailed) -> None:
        """Find out whose rows fail the tests, and take these out, so that they block nobody.

        All are taken out and brought back one by one. Rows that took the place of others stay:
        without them there would be none. Raises TestsFailed where the tests fail without them.
        """
        suspects = [message for message in loaded if message.files]
        if not suspects:
            raise error
        for message in suspects:
            self.forget(message)
        self.build(loaded)
        for message in suspects:
            if len(suspects) > 1:
                self.load(message, again=True)
                try:
                    self.build([message])
                    continue
                except TestsFailed as own:
                    error = own
                    self.forget(message)
                    self.build([message])
            self.bury(message, error)

    def load(self, message: Message, *, again: bool = False) -> bool:
        """Load the objects that a message tells of; tell whether there was any.

        `again` brings back what was taken out. Raises NotAnEvent, Refused and Failed.
        """
        refused = []
        for upload in uploads(message.body):
            table = table_of(upload, self.landing)
            if not table:
                say("left alone, not below the landing zone's <source>/<table>/", upload=upload.url)
                continue
            refused += self.load_one(upload, table, message, again=again)
        if refused:
            raise Refused("; ".join(refused))
        return bool(message.tables)

    def load_one(self, upload: Upload, table: str, message: Message, *, again: bool) -> list[str]:
        """Load one object; return why files of it were refused. Raises Failed."""
        options = ["--full-refresh"] if again else []
        done = self.start("load", "--json", *options, upload.url)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        files = [event for event in events if event["event"] == "file"]
        failed = [event["message"] for event in events if event["event"] == "failed"]
        if any(upload.url in each and "does not exist" in each for each in failed):
            say("no longer there", upload=upload.url)
            return []
        if failed or not files or done.returncode not in (0, 1):
            if any(event["event"] == "left_alone" for event in events) and not failed:
                return []
            raise Failed("; ".join(failed) or last_lines(done))
        for event in files:
            say(event["message"], upload=upload.url, version=upload.version, rows=event["rows"])
        # A message that comes again may be one that an earlier try loaded, and never settled.
        own = LOADED if message.receives == 1 else (*LOADED, "unchanged")
        if not again:
            message.files += [event["file"] for event in files if event["status"] in own]
        taken_out = [event for event in files if event["status"] == "forgotten"]
        if taken_out and message.receives > 1 and not again:
            return self.load_one(upload, table, message, again=True)
        if any(event["status"] not in ("refused", "forgotten") for event in files):
            message.tables.add(table)
        return [
            event["message"]
            + ": its rows were taken out before; `load.py --full-refresh` with its path loads it"
            * (event["status"] == "forgotten")
            for event in files
            if event["status"] in ("refused", "forgotten")
        ]

    def forget(self, message: Message) -> None:
        """Take out the rows that a message brought. Raises Failed."""
        options = [part for file in message.files for part in ("--forget", file)]
        done = self.start("load", "--json", *options)
        if done.returncode:
            raise Failed(last_lines(done))

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
        """Run a command of the project. Raises Failed where it takes too long."""
        commands = {
            "load": [PROJECT / "ingest" / "load.py"],
            "publish": [PROJECT / "ingest" / "publish.py"],
            "dbt": ["-m", "dbt.cli.main", "--no-use-colors"],
        }
        try:
            done = subprocess.run(
                [sys.executable, *map(str, commands[command]), *args],
                cwd=PROJECT,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{command} took longer than {self.timeout} s") from None
        say("ran", command=[command, *args], exit_code=done.returncode)
        return done

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out for as long as the block takes. Raises Failed where one goes on."""
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
                    raise Failed("another run of the pipeline goes on")
                yield

    def give_back(self, messages: list[Message], error: Exception) -> list[Message]:
        """Return the messages that are to be delivered again; bury those whose tries are over."""
        most = int(os.environ.get("ONTIME_MAX_RECEIVES", "5"))
        again = []
        for message in messages:
            say("failed", level="error", message=message.id, reason=str(error))
            if message.receives < most:
                again.append(message)
            else:
                self.bury(message, error)
        return again

    def bury(self, message: Message, error: Exception) -> None:
        """Send a message to the dead-letter queue, with the reason."""
        if not message.id:
            return
        say("to the dead-letter queue", level="error", message=message.id, reason=str(error))
        get_session().create_client("sqs").send_message(
            QueueUrl=os.environ["ONTIME_DEAD_LETTERS"],
            MessageBody=message.body or "{}",
            MessageAttributes={
                "reason": {"DataType": "String", "StringValue": str(error)[:REASON_CHARACTERS]}
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
        # Of the last try, the handler itself sends what failed to the dead-letter queue.
        message = Message("task", json.dumps(body), receives=1 if attempt < TRIES else 1_000)
        if not Pipeline().handle([message]):
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
    """Run what a schedule asks for; the exit code tells of failure."""
    try:
        Pipeline().run(name)
    except Failed as error:
        say("failed", level="error", run=name, reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
