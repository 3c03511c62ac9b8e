"""The pipeline of deploy/aws/: its template in an emulator of AWS, and its function on real rows.

A PostgreSQL server stands for RDS. The function runs as Lambda runs it: a process of its own, with
the environment and the role that the template gives it, and the messages that the queue delivers.
"""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice

import duckdb
import psycopg2
import pytest
import yaml
from botocore.exceptions import ClientError

from deploy.aws import handler as function
from ingest.landing import put_sample

from .conftest import PROJECT, Box, PostgresBox, environment, run_dbt, run_load
from .servers import AwsServer
from .test_engines import difference

TEMPLATE = PROJECT / "deploy" / "aws" / "template.yaml"
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/ontime:1"
LARGEST_FOR_THE_FUNCTION = 104_857_600
BTS = PROJECT / "tests" / "fixtures" / "bts" / "selectfields_oklahoma_2023_01.csv.gz"
OKLAHOMA = f"bts/on_time/{BTS.name}"
BROKEN = "nycflights13/weather/broken.csv"
GONE = "nycflights13/weather/gone.csv"
POISON = "bts/on_time/poison.csv"
FUNCTION = """
import json, sys
from deploy.aws.handler import handler
class Context:
    def get_remaining_time_in_millis(self):
        return 600_000
print(json.dumps(handler({"Records": json.load(sys.stdin)}, Context())))
"""
# What DuckDB calls the types of a Parquet file, where Athena has another name.
OF_ATHENA = {"INTEGER": "int", "VARCHAR": "string", "TIMESTAMP WITH TIME ZONE": "timestamp"}


class Stack(PostgresBox):
    """The template's resources, and a database of the user and password in its secret."""

    def __init__(self, box: PostgresBox, aws: AwsServer):
        super().__init__(box.landing, box.database, box.server, box.name)
        self.aws = aws
        self.stack = box.name.replace("_", "-")
        cloud = aws.client("cloudformation")
        parameters = {
            "Name": self.stack,
            "ImageUri": IMAGE,
            # There is nothing that runs an image: the tests call the function.
            "PipelineEnabled": "false",
        }
        cloud.create_stack(
            StackName=self.stack,
            TemplateBody=TEMPLATE.read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in parameters.items()
            ],
        )
        waiter = cloud.get_waiter("stack_create_complete")
        waiter.wait(StackName=self.stack, WaiterConfig={"Delay": 1})
        made = cloud.describe_stack_resources(StackName=self.stack)["StackResources"]
        self.made = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made}
        self.bucket, self.marts = self.made["LandingBucket"], self.made["MartsBucket"]
        self.settings = aws.client("lambda").get_function_configuration(
            FunctionName=self.made["Function"]
        )
        self.role = self.assume(self.settings["Role"])
        self.secret = self.settings["Environment"]["Variables"]["ONTIME_SECRET"]
        found = aws.client("secretsmanager").get_secret_value(SecretId=self.secret)
        user = json.loads(found["SecretString"])
        password = user["password"].replace("'", "''")
        self.server.execute(
            f"drop role if exists {user['username']};"
            f" create role {user['username']} login password '{password}';"
            f" alter database {box.name} owner to {user['username']}"
        )

    def assume(self, role: str) -> dict[str, str]:
        """Return the variables with which a program has a role."""
        answer = self.aws.client("sts").assume_role(RoleArn=role, RoleSessionName="function")
        got = answer["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": got["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": got["SecretAccessKey"],
            "AWS_SESSION_TOKEN": got["SessionToken"],
        }

    @property
    def variables(self) -> dict[str, str]:
        """The function's environment: the template's, but for where the services are."""
        of_server = self.server.variables(self.name)
        place = {name: of_server[name] for name in ("PGHOST", "PGPORT", "PGDATABASE")}
        target = str(self.database.parent / "target")
        return {
            **self.settings["Environment"]["Variables"],
            **place,
            "PGSSLMODE": "disable",
            **self.aws.variables(),
            **self.role,
            "DBT_TARGET_PATH": target,
            "DBT_LOG_PATH": target,
        }

    def upload(self, name: str, body: bytes, prefix: str = "landing") -> None:
        """Put an object into the landing bucket."""
        s3 = self.aws.client("s3")
        s3.put_object(Bucket=self.bucket, Key=f"{prefix}/{name}", Body=body)

    def waiting(self, queue: str) -> int:
        """Return how many messages of a queue could be delivered."""
        answer = self.aws.client("sqs").get_queue_attributes(
            QueueUrl=self.made[queue], AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def receive(self, count: int, queue: str = "Queue", **role: str) -> list[dict]:
        """Return the messages of a queue, which must be so many, as Lambda hands them on."""
        found: list[dict] = []
        sqs = self.aws.client("sqs", **role)
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            answer = sqs.receive_message(
                QueueUrl=self.made[queue],
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            found += answer.get("Messages", [])
        assert (len(found), self.waiting(queue)) == (count, 0)
        return [
            {name[0].lower() + name[1:]: value for name, value in each.items()} for each in found
        ]

    def start(self, records: list[dict]) -> subprocess.Popen[str]:
        """Start the function, in a group of processes that can be killed at once."""
        process = subprocess.Popen(
            [sys.executable, "-c", FUNCTION],
            cwd=PROJECT,
            env=environment("", **self.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        process.stdin.write(json.dumps(records))
        process.stdin.close()
        return process

    def deliver(self, count: int) -> list[str]:
        """Give the function the queue's messages; return the bodies of those that it gives back."""
        records = self.receive(count, **self.role)
        with self.start(records) as process:
            *log, answer = process.stdout.read().splitlines()
        print(*log, answer, sep="\n")
        assert process.returncode == 0
        again = {each["itemIdentifier"] for each in json.loads(answer)["batchItemFailures"]}
        sqs = self.aws.client("sqs", **self.role)
        for record in records:
            if record["messageId"] not in again:
                sqs.delete_message(
                    QueueUrl=self.made["Queue"], ReceiptHandle=record["receiptHandle"]
                )
        returned = [record for record in records if record["messageId"] in again]
        self.come_again(returned)
        return [record["body"] for record in returned]

    def come_again(self, records: list[dict]) -> None:
        """Have messages delivered again now, and not after an hour and a half."""
        for record in records:
            self.aws.client("sqs").change_message_visibility(
                QueueUrl=self.made["Queue"],
                ReceiptHandle=record["receiptHandle"],
                VisibilityTimeout=0,
            )

    def kill(self, count: int, *, loads: int, in_the_next: bool) -> None:
        """Give the function the queue's messages, and kill it when it has loaded some of them.

        `in_the_next` waits until the load that follows has begun.
        """
        records = self.receive(count, **self.role)
        with self.start(records) as process:
            ran = (line for line in process.stdout if json.loads(line)["event"] == "ran")
            assert len([*islice(ran, loads)]) == loads
            while in_the_next and not self.workspace.exists():
                assert process.poll() is None
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        # The server finds out by itself that nobody is there any more.
        while self.server.execute(f"select 1 from pg_stat_activity where datname = '{self.name}'"):
            time.sleep(0.1)
        self.check_registry()
        self.come_again(records)

    def dead(self, count: int) -> dict[str, str]:
        """Take the messages out of the dead-letter queue, as {body: reason, "" without one}."""
        sqs, found = self.aws.client("sqs"), {}
        for record in self.receive(count, "DeadLetters"):
            reason = record.get("messageAttributes", {}).get("reason", {"StringValue": ""})
            found[record["body"]] = reason["StringValue"]
            sqs.delete_message(
                QueueUrl=self.made["DeadLetters"], ReceiptHandle=record["receiptHandle"]
            )
        return found

    def published(self, table: str) -> tuple[dict, str]:
        """Bring what is published of a mart here; return its description, and a query of it."""
        s3 = self.aws.client("s3")
        folder = self.database.parent / "read"

        def body(path: str) -> bytes:
            return s3.get_object(Bucket=self.marts, Key=f"marts/{table}/{path}")["Body"].read()

        latest = json.loads(body("_latest.json"))
        local = [folder / table / file["path"] for file in latest["files"]]
        for file, path in zip(latest["files"], local, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body(file["path"]))
        return latest, f"read_parquet({[*map(str, local)]}, hive_partitioning = true)"


@pytest.fixture
def stack(postgres_box: PostgresBox, aws: AwsServer) -> Stack:
    """Return what the template makes, with nothing in it."""
    return Stack(postgres_box, aws)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return good files of two sources, large ones cut, by their names in the landing zone."""
    folder = tmp_path_factory.mktemp("files")
    put_sample(folder)
    files = {OKLAHOMA: BTS.read_bytes()}
    for path in sorted(folder.rglob("*.csv")):
        lines = path.read_bytes().splitlines(keepends=True)
        # Of the flights, some days of January and of October.
        kept = lines if len(lines) < 20_000 else lines[:2_000] + lines[30_000:32_000]
        files[path.relative_to(folder).as_posix()] = b"".join(kept)
    assert len(files) == 6
    return files


@pytest.fixture(scope="module")
def local(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a warehouse on this machine with the good files, in which everything is built."""
    folder = tmp_path_factory.mktemp("local")
    box = Box(folder / "landing", folder / "warehouse.duckdb")
    for name, body in files.items():
        box.write(name, body)
    box.load()
    result = run_dbt("build", "--exclude", "resource_type:test", database=box.database)
    assert result.returncode == 0, result.stdout
    return box


def key_of(record: dict) -> str:
    """Return the object that an event of EventBridge is about."""
    return json.loads(record["body"])["detail"]["object"]["key"]


def test_everything_is_made(stack: Stack) -> None:
    """And a stack that is deleted leaves the files."""

    class Plain(yaml.SafeLoader):
        """Reads a template without its functions."""

    Plain.add_multi_constructor("!", lambda *_: None)
    template = yaml.load(TEMPLATE.read_text(), Plain)
    assert stack.made.keys() == template["Resources"].keys()
    # The same image runs in both, with the same settings but for the queue's own.
    [container] = stack.aws.client("ecs").describe_task_definition(
        taskDefinition=stack.made["Task"]
    )["taskDefinition"]["containerDefinitions"]
    of_function = dict(stack.settings["Environment"]["Variables"])
    assert of_function.pop("ONTIME_MAX_RECEIVES") == "5"
    assert {each["name"]: each["value"] for each in container["environment"]} == of_function

    stack.upload("acme/orders/a.csv", b"id\n1\n")
    cloud = stack.aws.client("cloudformation")
    cloud.delete_stack(StackName=stack.stack)
    waiter = cloud.get_waiter("stack_delete_complete")
    waiter.wait(StackName=stack.stack, WaiterConfig={"Delay": 1})
    s3 = stack.aws.client("s3")
    kept = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    assert {stack.bucket, stack.marts} <= kept
    [found] = s3.list_objects_v2(Bucket=stack.bucket)["Contents"]
    assert found["Key"] == "landing/acme/orders/a.csv"


def test_which_uploads_arrive(stack: Stack) -> None:
    """Those below landing/, in the queue, with their names as they are; large ones at the task."""
    stack.upload("acme/orders/a.csv", b"id\n1\n", prefix="elsewhere")
    stack.upload("acme/orders/a b+ü%20.csv", b"id\n1\n")
    [record] = stack.receive(1)
    assert key_of(record) == "landing/acme/orders/a b+ü%20.csv"
    stack.aws.client("s3").delete_object(
        Bucket=stack.bucket, Key="landing/acme/orders/a b+ü%20.csv"
    )

    # The emulator starts no tasks: a queue shows what the task would be told.
    events = stack.aws.client("events")
    rule = stack.made["LargeUploads"]
    [target] = events.list_targets_by_rule(Rule=rule)["Targets"]
    assert target["Arn"].endswith(f":cluster/{stack.made['Cluster']}")
    shown = stack.aws.client("sqs").get_queue_attributes(
        QueueUrl=stack.made["DeadLetters"], AttributeNames=["QueueArn"]
    )["Attributes"]["QueueArn"]
    events.put_targets(
        Rule=rule,
        Targets=[{"Id": "shown", "Arn": shown, "InputTransformer": target["InputTransformer"]}],
    )
    stack.upload("acme/orders/small.csv", bytes(LARGEST_FOR_THE_FUNCTION))
    stack.upload("acme/orders/large.csv", bytes(LARGEST_FOR_THE_FUNCTION + 1))
    assert list(map(key_of, stack.receive(1))) == ["landing/acme/orders/small.csv"]
    [body] = stack.dead(1)
    [override] = json.loads(body)["containerOverrides"]
    assert override["command"] == ["upload", stack.bucket, "landing/acme/orders/large.csv"]
    done = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "aws" / "handler.py", *override["command"]],
        env=environment("", **stack.variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    [(body, reason)] = stack.dead(1).items()
    assert key_of({"body": body}) == "landing/acme/orders/large.csv"
    assert "large.csv: refused: line 1" in reason


def test_what_the_function_may(stack: Stack) -> None:
    """What it needs, as the test of uploads shows, and nothing else."""
    landed, mart = "landing/acme/orders/a.csv", "marts/dim/part.parquet"
    stack.upload("acme/orders/a.csv", b"id\n1\n")
    stack.upload("private.csv", b"id\n1\n", prefix="elsewhere")
    in_lake, in_marts = {"Bucket": stack.bucket}, {"Bucket": stack.marts}
    queue = {"QueueUrl": stack.made["Queue"]}
    dead = {"QueueUrl": stack.made["DeadLetters"]}
    table = {"DatabaseName": stack.made["GlueDatabase"]}
    allowed = [
        ("s3", "get_object", in_lake | {"Key": landed}),
        ("s3", "list_objects_v2", in_lake),
        ("s3", "list_objects_v2", in_marts),
        ("s3", "put_object", in_marts | {"Key": mart}),
        ("s3", "delete_object", in_marts | {"Key": mart}),
        ("glue", "create_table", table | {"TableInput": {"Name": "dim"}}),
        ("sqs", "send_message", dead | {"MessageBody": "{}"}),
        ("secretsmanager", "get_secret_value", {"SecretId": stack.secret}),
    ]
    denied = [
        ("s3", "delete_object", in_lake | {"Key": landed}),
        ("s3", "delete_objects", in_lake | {"Delete": {"Objects": [{"Key": landed}]}}),
        ("s3", "put_object", in_lake | {"Key": landed}),
        ("s3", "get_object", in_lake | {"Key": "elsewhere/private.csv"}),
        ("s3", "list_object_versions", in_lake),
        ("s3", "delete_bucket_policy", in_lake),
        ("s3", "put_object", in_marts | {"Key": "athena/answer.csv"}),
        ("s3", "get_object", in_marts | {"Key": "athena/answer.csv"}),
        ("s3", "delete_bucket", in_marts),
        ("s3", "create_bucket", {"Bucket": f"{stack.stack}-other"}),
        ("sqs", "send_message", queue | {"MessageBody": "{}"}),
        ("sqs", "receive_message", dead),
        ("sqs", "purge_queue", dead),
        ("glue", "delete_table", table | {"Name": "dim"}),
        ("glue", "create_table", {"DatabaseName": "other", "TableInput": {"Name": "dim"}}),
        ("secretsmanager", "put_secret_value", {"SecretId": stack.secret, "SecretString": "x"}),
        ("secretsmanager", "list_secrets", {}),
        ("iam", "list_roles", {}),
        ("lambda", "invoke", {"FunctionName": stack.made["Function"]}),
        ("ecs", "run_task", {"cluster": stack.made["Cluster"], "taskDefinition": "x"}),
        ("rds", "describe_db_instances", {}),
    ]

    def outcome(service: str, operation: str, arguments: dict, **role: str) -> str:
        try:
            getattr(stack.aws.client(service, **role), operation)(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"].removesuffix("Exception")
        return "done"

    for call in allowed:
        assert outcome(*call, **stack.role) == "done", call
    for call in denied:
        assert outcome(*call, **stack.role) == "AccessDenied", call
    # Nor is anything read or written without encryption.
    plain = stack.role | {"AWS_ENDPOINT_URL": stack.aws.plain_url}
    assert outcome(*allowed[0], **plain) == "AccessDenied"
    assert outcome(*allowed[2], **plain) == "AccessDenied"


def test_a_file_is_landed_with_tags(stack: Stack) -> None:
    """The one who lands it has every right; the function may read what was put with the file."""
    file = stack.landing / "a.csv"
    file.write_bytes(b"id\n1\n")
    landing = f"s3://{stack.bucket}/landing"
    of_owner = stack.aws.variables() | {"ONTIME_LANDING": landing}
    land = (sys.executable, PROJECT / "ingest" / "land.py")
    to = ("--to", "acme/orders", "--tag", "of=tests")
    result = run_load(file, *to, command=land, database=stack.database, **of_owner)
    assert result.returncode == 0, result.stderr
    [record] = stack.receive(1)
    assert key_of(record) == "landing/acme/orders/a.csv"
    of_function = stack.variables | stack.server.variables(stack.name)
    url = f"{landing}/acme/orders/a.csv"
    result = run_load(url, database=stack.database, **of_function)
    assert result.returncode == 0, result.stderr
    assert stack.tables()["acme_orders"] == 1


def test_no_role_may_do_everything(stack: Stack) -> None:
    """What the template itself allows names each action, and what may be done it to."""
    iam = stack.aws.client("iam")
    roles = [name for name in stack.made if name.endswith("Role")]
    assert len(roles) == 3
    allowed = 0
    for role in (stack.made[name] for name in roles):
        for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
            for statement in document["Statement"]:
                allowed += 1
                for value in (statement["Action"], statement["Resource"]):
                    names = [value] if isinstance(value, str) else value
                    assert not [name for name in names if re.search(r"^\*|:\*$", name)], statement
    assert allowed > 5


def test_uploads_become_marts(stack: Stack, files: dict[str, bytes], local: Box) -> None:
    """Good files end as a local build has them, whatever comes twice, or is killed on its way."""
    order = random.Random(6)
    names = order.sample(sorted(files), len(files))
    for name in (*names, order.choice(names)):
        stack.upload(name, files[name])
    stack.kill(7, loads=order.randrange(1, 5), in_the_next=True)
    stack.kill(7, loads=7, in_the_next=False)
    assert stack.tables().keys() > {"bts_on_time", "nycflights13_flights"}
    assert stack.query("select 1 from information_schema.tables where table_schema = 'marts'") == []

    # What cannot be loaded comes between them, and blocks nothing.
    stack.upload(BROKEN, b"origin,year\nJFK\x00,2013\n")
    stack.upload(GONE, b"origin,year\nJFK,2013\n")
    stack.aws.client("s3").delete_object(Bucket=stack.bucket, Key=f"landing/{GONE}")
    stack.aws.client("sqs").send_message(QueueUrl=stack.made["Queue"], MessageBody="{")
    assert stack.deliver(10) == []
    stack.check_registry()
    assert not stack.workspace.exists()
    dead = stack.dead(2)
    assert "is not JSON" in dead.pop("{")
    [(body, reason)] = dead.items()
    assert key_of({"body": body}) == f"landing/{BROKEN}"
    assert "a NUL byte" in reason
    check_marts(stack, local)

    # One whose values fail a test is taken out; one that came before, and comes again, stays.
    header, *records = gzip.decompress(files[OKLAHOMA]).splitlines(keepends=True)
    poison = [record.replace(b"2023", b"20x3") for record in records[:4]]
    stack.upload(POISON, b"".join([header, *poison]))
    stack.upload(OKLAHOMA, files[OKLAHOMA])
    assert stack.deliver(2) == []
    [(body, reason)] = stack.dead(1).items()
    assert key_of({"body": body}) == f"landing/{POISON}"
    assert "bts_values_cast" in reason
    assert stack.query(
        "select path, is_current from raw.landed_files where source_name = 'bts' order by path"
    ) == [(POISON, False), (OKLAHOMA, True)]
    check_marts(stack, local)


def check_marts(stack: Stack, local: Box) -> None:
    """Assert that the marts, what is published of them, and what Glue says of it are as local."""
    glue = stack.aws.client("glue")
    of_glue = glue.get_tables(DatabaseName=stack.made["GlueDatabase"])["TableList"]
    known = {table["Name"]: table for table in of_glue}
    marts = local.catalog("marts")
    assert len(marts) > 10
    assert known.keys() == {table for _, table in marts}
    for (_, table), columns in marts.items():
        select = ", ".join(name for name, _ in columns)
        is_double = [kind == "double" for _, kind in columns]
        expected = local.query(f"select {select} from marts.{table}")
        found = stack.query(f"select {select} from marts.{table}")
        assert difference(expected, found, is_double) == [], table
        latest, reading = stack.published(table)
        rows = duckdb.sql(f"select {select} from {reading}").fetchall()
        assert difference(expected, rows, is_double) == [], table

        # Athena takes months from their folders, and the other columns from the files.
        place = known[table]["StorageDescriptor"]
        location = f"s3://{stack.marts}/marts/{table}/{latest['version']}/"
        assert place["Location"] == location
        described = duckdb.sql(f"describe select * from {reading}").fetchall()
        kinds = {name: OF_ATHENA.get(kind, kind.lower()) for name, kind, *_ in described}
        keys = known[table]["PartitionKeys"]
        assert {each["Name"]: each["Type"] for each in (*place["Columns"], *keys)} == kinds
        parameters = known[table]["Parameters"]
        if not (table.startswith("fct_") and "flight_month" in kinds):
            assert (keys, parameters.get("projection.enabled")) == ([], None)
            continue
        assert keys == [{"Name": "flight_month", "Type": "date"}]
        months = [f"{month}" for (month,) in local.query(
            f"select distinct flight_month from marts.{table} order by 1"
        )]  # fmt: skip
        assert parameters["projection.enabled"] == "true"
        assert parameters["projection.flight_month.range"] == f"{months[0]},{months[-1]}"
        of_month = parameters["storage.location.template"]
        folders = {of_month.replace("${flight_month}", month) for month in months}
        paths = {f"{location}{file['path'].partition('/')[2]}" for file in latest["files"]}
        assert {f"{path.rpartition('/')[0]}/" for path in paths} == folders
    assert local.query("select count(*) from marts.fct_flights") == [(10_067,)]


def test_while_another_run_goes_on(stack: Stack, files: dict[str, bytes]) -> None:
    """Nothing is done; a message comes again, and the last time it goes where somebody looks."""
    stack.upload(OKLAHOMA, files[OKLAHOMA])
    user = stack.server.variables(stack.name)
    other = psycopg2.connect(user=user["PGUSER"], password=user["PGPASSWORD"], host=user["PGHOST"],
                             port=user["PGPORT"], dbname=stack.name)  # fmt: skip
    with other.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", [function.LOCK])
        for _ in range(4):
            [body] = stack.deliver(1)
        assert stack.waiting("DeadLetters") == 0
        assert stack.deliver(1) == []
    other.close()
    assert stack.waiting("Queue") == 0
    assert stack.dead(1) == {body: "another run of the pipeline goes on"}
    assert stack.tables() == {}
