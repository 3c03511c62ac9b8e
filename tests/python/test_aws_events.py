"""What the queue's messages say, whatever they hold."""

import json
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.aws.events import NotAnEvent, Upload, uploads

# Names of objects are UTF-8: no lone surrogates; and a NUL can be given to no command.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
names = st.text(characters, min_size=1, max_size=60)
objects = st.builds(
    Upload, bucket=names, key=names, version=st.just("") | names, size=st.integers(0, 5 << 40)
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
DELETIONS = ("Object Deleted", "Object Tags Added", "Object Restore Completed")


def bridged(upload: Upload, kind: str = "Object Created") -> str:
    """An event as EventBridge puts it into a queue."""
    version = {"version-id": upload.version} if upload.version else {}
    of = {"key": upload.key, "size": upload.size, "etag": "0" * 32, "sequencer": "00", **version}
    detail = {
        "version": "0",
        "bucket": {"name": upload.bucket},
        "object": of,
        "reason": "PutObject",
    }
    return json.dumps({"version": "0", "source": "aws.s3", "detail-type": kind, "detail": detail})


def record(upload: Upload, name: str = "ObjectCreated:Put") -> dict:
    """One record of a notification that S3 itself puts into a queue."""
    version = {"versionId": upload.version} if upload.version else {}
    of = {"key": quote_plus(upload.key), "size": upload.size, "eTag": "0" * 32, **version}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": upload.bucket}, "object": of},
    }


@given(objects)
def test_event_of_eventbridge(upload: Upload) -> None:
    """Its key is plain: what looks encoded stays as it is."""
    assert uploads(bridged(upload)) == [upload]


@given(st.lists(objects))
def test_notification_of_s3(found: list[Upload]) -> None:
    """Its keys are encoded; it may hold several, and one of them twice."""
    body = json.dumps({"Records": [record(each) for each in [*found, *found]]})
    assert uploads(body) == list(dict.fromkeys(found))


@given(st.lists(st.tuples(objects, st.booleans())))
def test_deletions_are_no_arrivals(found: list[tuple[Upload, bool]]) -> None:
    """Rows stay when an object is deleted; what came besides is still found."""
    records = [
        record(each, "ObjectCreated:Copy" if came else "ObjectRemoved:DeleteMarkerCreated")
        for each, came in found
    ]
    expected = list(dict.fromkeys(each for each, came in found if came))
    assert uploads(json.dumps({"Records": records})) == expected
    for each, _ in found:
        assert [uploads(bridged(each, kind)) for kind in DELETIONS] == [[], [], []]


def test_keys_that_are_easily_misread() -> None:
    """A plus sign and a percent sign in a name, in both forms."""
    upload = Upload("b", "landing/acme/orders/50%25 a+b (ü).csv", "v1", 3)
    encoded = {"Records": [record(upload)]}
    assert encoded["Records"][0]["s3"]["object"]["key"] == (
        "landing%2Facme%2Forders%2F50%2525+a%2Bb+%28%C3%BC%29.csv"
    )
    assert uploads(json.dumps(encoded)) == uploads(bridged(upload)) == [upload]
    assert upload.url == "s3://b/landing/acme/orders/50%25 a+b (ü).csv"


def test_the_test_that_s3_sends() -> None:
    """S3 sends it when notifications are set up."""
    body = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b", "RequestId": "0"}
    assert uploads(json.dumps(body)) == []


@given(st.text() | json_values.map(json.dumps))
def test_anything_else_is_said_to_be_no_event(body: str) -> None:
    """No message ends the function with an error of the program."""
    try:
        found = uploads(body)
    except NotAnEvent as error:
        assert str(error).startswith("the message ")
    else:
        # An object without anything but, by chance, the names of an event without objects.
        assert found == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"source": "aws.s3"}',
        '{"source": "aws.ec2", "detail-type": "Object Created", "detail": {}}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}',
        bridged(Upload("b", "k", "", 0)).replace('"k"', '""'),
        json.dumps({"Records": [record(Upload("b", "k", "", 0))]}).replace('"k"', '"%ff"'),
        json.dumps({"Records": [record(Upload("b", "k", "", 0))]}).replace('"k"', '"%00"'),
        bridged(Upload("b", "k\0", "", 0)),
        bridged(Upload("b", "k\ud800", "", 0)),
        bridged(Upload("b\ud800", "k", "", 0)),
        bridged(Upload("b", "k", "", 0)).replace('"size": 0', '"size": Infinity'),
        "[" * 100_000,
    ],
)
def test_broken_events(body: str) -> None:
    """What is nearly an event is refused, not passed over in silence."""
    with pytest.raises(NotAnEvent, match="the message "):
        uploads(body)
