"""Calls the API with python-zaqarclient. The argument is the URL of the server."""

import sys
import time
import uuid

from zaqarclient.queues import client
from zaqarclient.transport import errors


def connect(url, project):
    auth = {"backend": "noauth", "options": {"project_id": project}}
    return client.Client(url, version=2, conf={"auth_opts": auth, "client_uuid": uuid.uuid4().hex})


def refused(error, call, *args, **kwargs):
    """Calls a function and expects this error."""
    try:
        call(*args, **kwargs)
    except error as caught:
        return str(caught)
    raise AssertionError(f"no {error.__name__} from {call.__name__}{args}")


def bodies(messages):
    return [message.body for message in messages]


def check_home(zaqar):
    assert zaqar.ping()
    home = zaqar.homedoc()["resources"]
    assert home["rel/queues"]["href-template"].startswith("/v2/queues")


def check_queues(zaqar):
    names = [f"queue-{n}" for n in range(5)]
    for name in names:
        assert zaqar.queue(name, force_create=True).exists()
    zaqar.queue(names[0], force_create=True)

    queues, count = zaqar.queues(limit=2, detailed=True, with_count=True)
    assert count == 5, count
    queues = list(queues.stream())
    assert [queue.name for queue in queues] == names, queues
    assert queues[0].metadata()["_default_message_ttl"] == 3600
    filtered, _ = zaqar.queues(name="queue-3")
    assert [queue.name for queue in filtered] == ["queue-3"]

    for name in names:
        zaqar.queue(name).delete()
    assert list(zaqar.queues()[0]) == []


def check_metadata(zaqar):
    queue = zaqar.queue("metadata", force_create=True)
    first = queue.metadata(new_meta={"_default_message_ttl": 300, "team": "blue", "list": [1]})
    assert (first["_default_message_ttl"], first["team"], first["list"]) == (300, "blue", [1])
    second = queue.metadata(new_meta={"team": "red"})
    assert (second["_default_message_ttl"], second["team"]) == (3600, "red")
    assert "list" not in second
    assert queue.metadata(force_reload=True) == second
    cleared = queue.metadata(new_meta={})
    assert "team" not in cleared and cleared["_max_messages_post_size"] == 262144
    refused(errors.MalformedRequest, queue.metadata, new_meta={"_default_message_ttl": 1})
    queue.delete()


def check_messages(zaqar, other):
    queue = zaqar.queue("messages", force_create=True)
    posted = queue.post([{"body": {"n": n}, "ttl": 300} for n in range(7)])
    ids = [path.split("/")[-1] for path in posted["resources"]]
    assert len(ids) == 7

    assert bodies(queue.messages()) == []
    everything = [{"n": n} for n in range(7)]
    assert bodies(queue.messages(limit=3, echo=True).stream()) == everything
    theirs = other.queue("messages").messages(limit=3)
    assert bodies(theirs.stream()) == everything
    chosen = queue.messages(ids[1], ids[4])
    assert sorted(message.id for message in chosen) == sorted([ids[1], ids[4]])

    message = queue.message(ids[0])
    assert (message.id, message.body, message.ttl) == (ids[0], {"n": 0}, 300)
    message.delete()
    refused(errors.ResourceNotFound, queue.message, ids[0])
    queue.delete_messages(ids[1], ids[2])
    assert [message.body["n"] for message in queue.pop(2)] == [3, 4]
    stats = queue.stats["messages"]
    assert (stats["total"], stats["free"], stats["claimed"]) == (2, 2, 0), stats
    assert stats["oldest"]["href"].endswith(ids[5])

    queue.purge(resource_types=["messages"])
    assert queue.stats["messages"]["total"] == 0
    queue.post({"body": "one more"})
    queue.purge()
    assert queue.stats["messages"]["total"] == 0
    refused(errors.MalformedRequest, queue.post, [{"body": 1, "ttl": 1}])
    queue.delete()


def check_claims(zaqar):
    queue = zaqar.queue("claims", force_create=True)
    assert list(queue.claim(ttl=60, grace=60)) == []
    queue.post([{"body": n, "ttl": 300} for n in range(5)])

    begun = time.monotonic()
    claim = queue.claim(ttl=100, grace=60, limit=2)
    first, second = list(claim)
    assert (first.body, second.body) == (0, 1)
    assert first.claim_id == claim.id
    assert claim.age <= time.monotonic() - begun + 1
    claim.update(ttl=200, grace=60)
    shown = queue.claim(id=claim.id)
    assert shown.ttl == 200
    assert bodies(shown) == [0, 1]
    assert bodies(queue.messages(echo=True)) == [2, 3, 4]
    assert bodies(queue.messages(echo=True, include_claimed=True)) == [0, 1, 2, 3, 4]

    first.delete()
    unclaimed = queue.message(second.id)
    unclaimed.href = unclaimed.href.split("?")[0]
    refused(errors.ForbiddenError, unclaimed.delete)
    claim.delete()
    refused(errors.ResourceNotFound, queue.claim(id=claim.id)._get)
    assert bodies(queue.claim()) == [1, 2, 3, 4]
    assert list(queue.claim()) == []
    queue.delete()


def main(url):
    project = f"zaqarclient {uuid.uuid4()}"
    zaqar, other = connect(url, project), connect(url, project)
    check_home(zaqar)
    check_queues(zaqar)
    check_metadata(zaqar)
    check_messages(zaqar, other)
    check_claims(zaqar)


if __name__ == "__main__":
    main(sys.argv[1])
