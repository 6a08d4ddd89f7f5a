"""One table: what happens to a stream, over each transport, behind each proxy.

The ids of these tests are its columns: `[pushpin-sse]`.
"""

from itertools import chain, repeat

import pytest

from tests.servers import wait_until
from tests.streams.followers import LongPolls

ALL = "/projects/stream/"
PRIVATE = "/private/stream/"


def of(pk, kind="projects"):
    return f"/{kind}/{pk}/stream/"


def sent_away(streams, act, *args):
    """Do it, and wait until these streams have ended.

    A long-poll whose view was asked just before and that was not held yet is not told:
    the next one is refused, or held, which is not seen from here. So it is done again.
    """
    act(*args)
    for stream in streams:
        if isinstance(stream, LongPolls):
            wait_until(lambda s=stream: not s.is_open or act(*args), "it has ended")
        stream.end()


def test_a_stream_opens_where_the_events_stand(site, follow, ann, row):
    before = follow(ALL, ann)
    site.save(row, "a")
    assert before.read(1) == ["a"]
    site.settle()
    stream = follow(ALL, ann)
    assert stream.status == 200
    assert stream.position == before.position


def test_a_snapshot_comes_first(site, follow, ann, row):
    stream = follow(ALL, ann, snapshot=True)
    snapshot = stream.next()
    assert (snapshot["op"], snapshot["done"]) == ("snapshot", True)
    assert [each["id"] for each in snapshot["rows"]] == [row]
    site.save(row, "a")
    assert stream.read(1) == ["a"]


def test_an_event_comes_to_every_subscriber(site, follow, ann, row):
    carl = site.user(ann.tenant)
    streams = [follow(path, ann) for path in (ALL, of(row), ALL)]
    streams += [follow(path, carl) for path in (ALL, PRIVATE)]
    for name in ("a", "b"):
        site.save(row, name)
        for stream in streams:
            event = stream.next()
            assert (event["op"], event["pk"]) == ("update", row)
            assert event["data"]["name"] == name


def test_s25_the_object_of_another_tenant_is_refused_and_nothing_of_it_comes(
    site, follow, ann, bob, row
):
    of_bob = site.create(bob.tenant)
    own = [follow(ALL, ann), follow(of(row), ann), follow(PRIVATE, ann)]
    since = own[0].position
    for kind in ("projects", "private"):
        for position in (None, since):
            refused = follow(of(of_bob, kind), ann, since=position)
            assert refused.status == 404
            nobody = follow(of(of_bob, kind), since=position)
            assert nobody.status == 403
    for number in range(3):
        site.save(of_bob, f"secret-{number}")
    site.save(row, "own")
    for stream in own:
        assert stream.read(1) == ["own"]
        assert stream.is_open


def test_who_comes_back_with_a_position_misses_nothing_and_gets_nothing_twice(
    site, follow, ann, row
):
    stream = follow(ALL, ann)
    for name in "abc":
        site.save(row, name)
    first = stream.read(2)
    stream.close()
    for name in "de":
        site.save(row, name)
    site.settle()
    again = follow(ALL, ann, since=stream.position)
    site.save(row, "f")
    assert first + again.read(4) == list("abcdef")


def test_what_is_written_between_a_snapshots_position_and_its_rows_comes(
    site, follow, later, ann, row
):
    with site.pause("rows") as pause:
        opened = later(follow, ALL, ann, snapshot=True, pause=pause)
        pause.until_reached()
        between = site.create(ann.tenant, "between")
    stream = opened()
    rows = stream.next()["rows"]
    assert [each["id"] for each in rows] == [row, between]
    # It is among the rows, and told as well.
    event = stream.next()
    assert (event["op"], event["pk"]) == ("create", between)
    site.save(between, "later")
    assert stream.read(1) == ["later"]


def test_what_is_written_between_a_snapshot_and_the_hold_comes(
    site, follow, later, ann, row
):
    with site.pause("answer") as pause:
        opened = later(follow, ALL, ann, snapshot=True, pause=pause)
        pause.until_reached()
        between = site.create(ann.tenant, "between")
    stream = opened()
    assert [each["id"] for each in stream.next()["rows"]] == [row]
    event = stream.next()
    assert (event["op"], event["pk"]) == ("create", between)
    site.save(between, "later")
    assert stream.read(1) == ["later"]


def test_what_is_written_between_an_answer_to_a_position_and_the_hold_comes(
    site, follow, later, ann, row
):
    first = follow(ALL, ann)
    first.close()
    with site.pause("answer") as pause:
        opened = later(follow, ALL, ann, since=first.position, pause=pause)
        pause.until_reached()
        site.save(row, "between")
        site.settle()
    stream = opened()
    site.save(row, "later")
    assert stream.read(2) == ["between", "later"]


def test_s33_a_row_that_leaves_the_tenant_ends_its_stream_and_is_refused(
    site, follow, ann, bob, row
):
    stays = site.create(ann.tenant)
    everything, own, of_bob = follow(ALL, ann), follow(of(row), ann), follow(ALL, bob)
    site.act(f"move/{row}/{bob.tenant}")
    for stream in (everything, own):
        event = stream.next()
        if stream is own and event == {"op": "refused", "status": 404}:
            # Between two polls, or while the proxy repeats one, the view is asked.
            assert isinstance(own, LongPolls)
            continue
        assert (event["op"], event["pk"]) == ("delete", row)
        assert event["reason"] == "leave"
        assert "data" not in event
    event = of_bob.next()
    assert (event["op"], event["reason"]) == ("create", "enter")
    assert event["data"]["name"] == f"of {bob.tenant}"
    own.end()
    for since in (None, own.position):
        assert follow(of(row), ann, since=since).status == 404
    assert follow(of(row), bob).status == 200
    # The others go on, without it.
    site.save(row, "secret")
    site.save(stays, "own")
    assert everything.read(1) == ["own"]


def test_s32_a_revoked_user_is_sent_away_at_once_and_asked_again(
    site, follow, ann, row
):
    carl = site.user(ann.tenant)
    revoked = [follow(PRIVATE, ann), follow(of(row, "private"), ann)]
    other = follow(PRIVATE, carl)
    site.save(row, "a")
    for stream in (*revoked, other):
        assert stream.read(1) == ["a"]
    sent_away(revoked, site.act, f"revoke/user/{ann.name}")
    site.save(row, "b")
    site.settle()
    # She still may, and goes on where she was.
    for stream in revoked:
        again = follow(stream.path, ann, since=stream.position)
        assert again.read(1) == ["b"]
    assert other.read(1) == ["b"]
    assert other.is_open


def test_s32_a_revoked_user_who_may_not_any_more_gets_nothing_more(
    site, follow, ann, row
):
    streams = [follow(PRIVATE, ann), follow(of(row, "private"), ann)]
    site.act(f"expel/{ann.name}")
    sent_away(streams, site.act, f"revoke/user/{ann.name}")
    site.save(row, "secret")
    site.settle()
    for stream, status in zip(streams, (403, 404), strict=True):
        assert follow(stream.path, ann).status == status
        assert follow(stream.path, ann, since=stream.position).status == status


@pytest.mark.parametrize("kind", ["projects", "private"])
def test_s34_the_streams_of_a_revoked_row_end_and_are_asked_again(
    site, follow, ann, row, kind
):
    stream, everything = follow(of(row, kind), ann), follow(ALL, ann)
    site.save(row, "a")
    assert stream.read(1) == everything.read(1) == ["a"]
    sent_away([stream], site.act, f"revoke/row/{row}")
    site.save(row, "b")
    site.settle()
    again = follow(of(row, kind), ann, since=stream.position)
    assert again.read(1) == ["b"]
    assert everything.read(1) == ["b"]
    assert everything.is_open


def test_s34_the_streams_of_a_revoked_model_end_for_all_its_tenants(
    site, follow, ann, bob, row
):
    of_bob = site.create(bob.tenant)
    streams = [follow(ALL, ann), follow(PRIVATE, bob)]
    site.save(row, "a")
    site.save(of_bob, "a")
    for stream in streams:
        assert stream.read(1) == ["a"]
    site.act(f"expel/{bob.name}")
    sent_away(streams, site.act, "revoke/model")
    site.save(row, "b")
    site.settle()
    again = follow(ALL, ann, since=streams[0].position)
    assert again.read(1) == ["b"]
    for since in (None, streams[1].position):
        assert follow(PRIVATE, bob, since=since).status == 403


def test_s32_a_logout_ends_a_private_stream_and_it_is_refused(site, follow, ann, row):
    carl = site.user(ann.tenant)
    streams = [follow(PRIVATE, ann), follow(of(row, "private"), ann)]
    other = follow(PRIVATE, carl)
    site.save(row, "a")
    for stream in (*streams, other):
        assert stream.read(1) == ["a"]
    # A second logout would tell nobody: the session is gone.
    again = repeat(lambda: site.act(f"revoke/user/{ann.name}"))
    acts = chain([lambda: site.log_out(ann)], again)
    sent_away(streams, lambda: next(acts)())
    site.save(row, "secret")
    site.settle()
    for stream in streams:
        for since in (None, stream.position):
            assert follow(stream.path, ann, since=since).status == 403
    assert other.read(1) == ["secret"]
    assert other.is_open
