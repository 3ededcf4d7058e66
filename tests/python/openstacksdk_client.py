"""Calls the API with openstacksdk. The argument is the URL of the server."""

import sys
import time
import uuid

from keystoneauth1 import noauth
from keystoneauth1 import session
from openstack import connection
from openstack import exceptions
from openstack.message.v2.claim import Claim

PATCH_TYPE = "application/openstack-messaging-v2.0-json-patch"


class Project(noauth.NoAuth):
    """A plugin without an identity service. The message proxy asks it for the project."""

    def __init__(self, endpoint, project):
        super().__init__(endpoint=endpoint)
        self.project = project

    def get_project_id(self, session, **kwargs):
        return self.project


def connect(url, project):
    """Connects to the API, which the version document at the URL describes."""
    auth = session.Session(auth=Project(url, project))
    return connection.Connection(session=auth, message_endpoint_override=url).message


class Plain:
    """Sends requests for which the proxy has no method, over its connection."""

    def __init__(self, proxy):
        self.proxy = proxy
        project = proxy.get_project_id()
        self.headers = {"Client-ID": str(uuid.uuid4()), "X-PROJECT-ID": project}

    def call(self, method, path, status, kind="application/json", **kwargs):
        headers = self.headers | {"Content-Type": kind}
        response = self.proxy.request(path, method, headers=headers, **kwargs)
        assert response.status_code == status, (method, path, response.status_code, response.text)
        return response.json() if response.text else None


def refused(error, call, *args, **kwargs):
    """Calls a function and expects this error."""
    try:
        call(*args, **kwargs)
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__} from {call.__name__}{args}")


def check_queues(message, plain):
    names = [f"queue-{n}" for n in range(5)]
    for name in names:
        message.create_queue(name=name, _default_message_ttl=300, description="a test")
    assert [queue.name for queue in message.queues(limit=2)] == names
    shown = message.get_queue("queue-0")
    assert (shown.default_message_ttl, shown.description) == (300, "a test"), shown
    assert shown.max_messages_post_size == 262144
    missing = message.get_queue("missing")
    assert missing.default_message_ttl == 3600

    operations = [
        {"op": "replace", "path": "/metadata/description", "value": "changed"},
        {"op": "remove", "path": "/metadata/_default_message_ttl"},
    ]
    patched = plain.call("PATCH", "/queues/queue-0", 200, kind=PATCH_TYPE, json=operations)
    assert (patched["description"], patched["_default_message_ttl"]) == ("changed", 3600)

    for name in names:
        message.delete_queue(name, ignore_missing=False)
    assert list(message.queues()) == []
    refused(exceptions.BadRequestException, message.create_queue, name="a queue")


def check_messages(message, plain):
    message.create_queue(name="messages")
    begun = time.monotonic()
    posted = message.post_message("messages", [{"body": {"n": n}, "ttl": 300} for n in range(7)])
    ids = [path.split("/")[-1] for path in posted]
    listed = list(message.messages("messages", limit=3, echo=True))
    assert [found.id for found in listed] == ids, listed
    assert [found.body["n"] for found in listed] == list(range(7))
    shown = message.get_message("messages", ids[3])
    assert (shown.body, shown.ttl) == ({"n": 3}, 300), shown
    assert shown.age <= time.monotonic() - begun + 1, shown
    message.delete_message("messages", ids[3])
    message.delete_message("messages", ids[3])
    refused(exceptions.NotFoundException, message.get_message, "messages", ids[3])

    popped = plain.call("DELETE", "/queues/messages/messages?pop=2", 200)["messages"]
    assert [found["body"]["n"] for found in popped] == [0, 1]
    stats = plain.call("GET", "/queues/messages/stats", 200)["messages"]
    assert (stats["total"], stats["claimed"]) == (4, 0), stats
    plain.call("POST", "/queues/messages/purge", 204, json={"resource_types": ["messages"]})
    assert list(message.messages("messages", echo=True)) == []
    message.delete_queue("messages")


def create_claim(message, queue, **attrs):
    """Creates a claim. `message.create_claim` fails because of a bug in openstacksdk 4.22.0.

    It replaces the Location header of the response, from which it then reads the id of the claim,
    with a description of the cloud.
    """
    return Claim.new(queue_name=queue, **attrs).create(message)


def check_claims(message):
    message.create_queue(name="work")
    message.post_message("work", [{"body": n, "ttl": 300} for n in range(3)])
    claim = create_claim(message, "work", ttl=100, grace=60)
    assert [found["body"] for found in claim.messages] == [0, 1, 2], claim
    again = create_claim(message, "work", ttl=100, grace=60)
    assert again.messages is None, "no message is free"

    shown = message.get_claim("work", claim.id)
    assert (shown.ttl, len(shown.messages)) == (100, 3), shown
    message.update_claim("work", claim.id, ttl=200, grace=60)
    assert message.get_claim("work", claim.id).ttl == 200

    first, second = (found["id"] for found in claim.messages[:2])
    message.delete_message("work", first, claim=claim.id)
    refused(exceptions.NotFoundException, message.get_message, "work", first)
    refused(exceptions.ForbiddenException, message.delete_message, "work", second)
    message.delete_claim("work", claim.id)
    refused(exceptions.NotFoundException, message.get_claim, "work", claim.id)
    freed = create_claim(message, "work", ttl=100, grace=60)
    assert [found["body"] for found in freed.messages] == [1, 2], freed
    message.delete_queue("work")


def main(url):
    message = connect(url, f"openstacksdk {uuid.uuid4()}")
    plain = Plain(message)
    check_queues(message, plain)
    check_messages(message, plain)
    check_claims(message)


if __name__ == "__main__":
    main(sys.argv[1])
