"""Streams end when their users may not have them any more, behind real proxies."""

import json

import pytest

from tests.clients import EventStream, request
from tests.contrib.eventlog.pushpin_shop import lose
from tests.contrib.rest_framework.over_time_sites import Site
from tests.servers import wait_until


@pytest.fixture(scope="module")
def site(proxy, tmp_path_factory):
    with Site(tmp_path_factory.mktemp("over_time"), proxy) as site:
        site.tell("first")
        yield site


@pytest.fixture
def names(request):
    """Two users of this test's own."""
    return [f"{who}-{abs(hash(request.node.name))}" for who in ("ann", "bob")]


class Stream(EventStream):
    """A stream whose first event, `ready`, was read."""

    def __init__(self, site, path, cookie=None, since=None):
        # Or it would begin with what came to others just now.
        site.settle()
        headers = {"Cookie": cookie} if cookie else {}
        if since is not None:
            headers["Last-Event-ID"] = since
        super().__init__(site.url + path, headers)
        assert self.status == 200, self.response.read()
        first = self.next()
        assert first.event == "ready"
        self.ready = json.loads(first.data)

    def said(self, count=1):
        events = [self.next(20) for _ in range(count)]
        assert {event.event for event in events} == {"said"}
        return [event.envelope["data"] for event in events]

    @property
    def last_id(self):
        """The position where it stands."""
        ids = [line for line in self._lines if line.startswith("id: ")]
        return ids[-1].removeprefix("id: ")


def settled(site, channel="shop.tag", requests=1):
    """Wait until the proxy has asked for a stream that was opened just now."""
    wait_until(lambda: len(site.asked(channel)) >= requests, "the proxy has asked")


def status_of(site, path, cookie):
    with EventStream(site.url + path, {"Cookie": cookie}) as stream:
        return stream.status


def test_s32_revoke_ends_a_users_private_stream_at_once_and_no_others(site, names):
    ann, bob = map(site.user, names)
    with (
        Stream(site, "/private/stream/", ann) as first,
        Stream(site, "/private/stream/", bob) as second,
        Stream(site, "/tags/stream/", ann) as shared,
    ):
        site.tell("a")
        for stream in (first, second, shared):
            assert stream.said() == ["a0"]
        site.act("revoke", name=names[0])
        assert first.ended.wait(20)
        # She is asked again, and may.
        with Stream(site, "/private/stream/", ann, first.last_id) as again:
            site.tell("b")
            for stream in (again, second, shared):
                assert stream.said() == ["b0"]
        assert first.waiting() == 0


def log_out(site, name, cookie):
    request(f"{site.origin}/logout/", "POST", headers={"Cookie": cookie})


def deactivate(site, name, cookie):
    site.act("save", name=name, is_active=False)


@pytest.mark.parametrize("cause", [log_out, deactivate])
def test_s32_what_happens_to_an_account_ends_its_streams_at_once(site, names, cause):
    ann, bob = map(site.user, names)
    with (
        Stream(site, "/private/stream/", ann) as first,
        Stream(site, "/private/stream/", bob) as second,
    ):
        cause(site, names[0], ann)
        assert first.ended.wait(20)
        assert status_of(site, "/private/stream/", ann) == 403
        site.tell("a")
        assert second.said() == ["a0"]
    assert not first.lines_seen("event: said")


def test_s36_s37_links_of_two_users_at_one_moment_are_answered_apart(site, names):
    """One of them may not have it any more, and nobody has told the proxy."""
    ann, bob = map(site.user, names)
    seen = len(site.asked("shop.tag"))
    with (
        Stream(site, "/private/stream/", ann) as first,
        Stream(site, "/private/stream/", bob) as second,
    ):
        settled(site, requests=seen + 2)
        site.tell("a")
        assert first.said() == second.said() == ["a0"]
        site.act("deactivate unseen", name=names[1])
        site.meddler.faults.append(lose)
        site.tell("lost")
        site.settle()
        # Neither proxy can tell this from the last: both streams are asked for.
        site.tell("b")
        assert first.said(2) == ["lost0", "b0"]
        assert second.ended.wait(20)
    assert second.waiting() == 0
    paths = {line.split()[1] for line in site.asked("shop.tag")[seen:]}
    assert len(paths) == 2


def test_a_private_stream_catches_up_in_order_with_more_than_one_answer(site, names):
    ann = site.user(names[0])
    with Stream(site, "/private/stream/", ann) as stream:
        site.tell("a")
        assert stream.said() == ["a0"]
        last = stream.last_id
    site.tell("b", 450)
    site.settle()
    with Stream(site, "/private/stream/", ann, last) as stream:
        assert stream.said(450) == [f"b{number}" for number in range(450)]
        site.tell("c")
        assert stream.said() == ["c0"]


def test_revoke_of_a_model_ends_its_streams_in_their_order(site, names):
    ann = site.user(names[0])
    with (
        Stream(site, "/tags/stream/") as shared,
        Stream(site, "/private/stream/", ann) as private,
        Stream(site, "/unlinked/stream/") as unlinked,
        Stream(site, "/own/stream/", ann) as other,
    ):
        site.tell("a")
        site.act("revoke tags")
        site.tell("b")
        for stream in (shared, private, unlinked):
            assert stream.said() == ["a0"]
            assert stream.ended.wait(20)
            assert stream.waiting() == 0
        with Stream(site, "/tags/stream/", since=shared.last_id) as again:
            assert again.said() == ["b0"]
        # Of its scopes only the log knows where they are.
        assert not other.ended.is_set()
        site.act("tell projects", name=names[0])
        assert other.next().event == "create"
        site.act("revoke projects")
        assert other.ended.wait(20)


def test_reset_has_clients_fetch_anew_in_its_place_among_the_events(site, names):
    with Stream(site, "/tags/stream/") as stream:
        site.tell("a")
        site.act("reset")
        site.tell("b")
        assert stream.said() == ["a0"]
        event = stream.next()
        assert event.event == "reset"
        assert event.envelope["channel"] == "shop.tag"
        assert event.envelope["reason"] == "asked"
        assert stream.said() == ["b0"]
