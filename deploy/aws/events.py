"""What a message of the queue says: which objects came into the landing zone."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus


class NotAnEvent(Exception):
    """A message is none that S3 or EventBridge sends; the text says what it is instead."""


@dataclass(frozen=True)
class Upload:
    """An object that came into the landing zone.

    `key` is the object's name as it is, `size` in bytes; `version` is blank where the bucket keeps
    no versions. The event is only the occasion to look at the object: what is loaded are the bytes
    that lie there now, so that events may come twice, late and in any order.
    """

    bucket: str
    key: str
    version: str
    size: int

    @property
    def url(self) -> str:
        """The object's address, as the loader takes it."""
        return f"s3://{self.bucket}/{self.key}"


def uploads(body: str) -> list[Upload]:
    """Return the objects whose arrival a message tells, in its order; none twice.

    Understands the events of EventBridge, whose keys are plain, and the notifications that S3
    itself sends to a queue, whose keys are URL-encoded. Deletions, and the test that S3 sends when
    notifications are set up, tell of no arrival. Raises NotAnEvent for anything else.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAnEvent(f"the message is not JSON: {error}") from None
    try:
        found = [Upload(*each) for each in _arrivals(message)]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise NotAnEvent(
            f"the message is no event of S3: {type(error).__name__}: {error}: expected one of"
            " EventBridge (detail-type Object Created) or a notification of S3 (Records)"
        ) from None
    if not all(each.bucket and each.key for each in found):
        raise NotAnEvent("the message names no bucket or no key")
    for each in found:
        if "\0" in each.url or not _is_utf8(each.url):
            raise NotAnEvent(f"the message names {each.url!a}, as no object can be called")
    return list(dict.fromkeys(found))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _arrivals(message: Any) -> list[tuple[str, str, str, int]]:
    if message.get("Event") == "s3:TestEvent":
        return []
    if message.get("source") == "aws.s3":
        kind, detail = message["detail-type"], message["detail"]
        if kind != "Object Created":
            return []
        of = detail["object"]
        key, version, size = of["key"], of.get("version-id"), of.get("size")
        return [(str(detail["bucket"]["name"]), str(key), str(version or ""), int(size or 0))]
    return [
        (
            str(record["s3"]["bucket"]["name"]),
            unquote_plus(record["s3"]["object"]["key"], errors="strict"),
            str(record["s3"]["object"].get("versionId") or ""),
            int(record["s3"]["object"].get("size") or 0),
        )
        for record in message["Records"]
        if record["eventName"].removeprefix("s3:").startswith("ObjectCreated:")
    ]
