"""Offers: items that the caller keeps, delivered to one server in its own time."""

import pytest
from control_port import Answer
from sending import counters, numbers

from django_grip.exceptions import PublishError
from django_grip.items import Item
from django_grip.publishers import console, get_publisher, locmem
from django_grip.publishers.base import Refusal
from servers import wait_until


def chain(start, stop, channel="room"):
    """Events with the positions from `start` to before `stop`, each behind the last."""
    return [
        Item(
            channel=channel,
            formats={"http-stream": {"content": f"{number},"}},
            id=f"e.{number}",
            prev_id=f"e.{number - 1}",
            events=True,
        )
        for number in range(start, stop)
    ]


@pytest.fixture
def outcomes():
    return []


def offer(control, items, outcomes):
    return get_publisher().offer(control.url, items, outcomes.append)


def test_the_servers_are_named_by_their_addresses(control_port, settings):
    ports = [control_port(), control_port()]
    settings.GRIP_PROXIES = [{"control_uri": port.url} for port in ports]
    assert list(get_publisher().servers) == [port.url for port in ports]


def test_an_offer_goes_to_one_server_and_says_when_it_arrived(
    control_port, settings, outcomes
):
    first, second = control_port(), control_port()
    settings.GRIP_PROXIES = [{"control_uri": port.url} for port in (first, second)]
    offer(second, chain(1, 4), outcomes)
    wait_until(lambda: outcomes, "the outcome")
    assert outcomes == [{}]
    assert second.text == "1,2,3,"
    assert not first.accepted


def test_what_waits_together_is_one_item_with_both_ends_of_the_chain(
    control_down, outcomes
):
    for start in (1, 4, 7):
        offer(control_down, chain(start, start + 3), outcomes)
    wait_until(lambda: counters(control_down)["retried"] >= 1, "a repetition")
    control_down.up()
    wait_until(lambda: len(outcomes) == 3, "the outcomes")
    items = [item for post in control_down.accepted for item in post.items]
    assert "".join(item["formats"]["http-stream"]["content"] for item in items) == (
        "".join(numbers(1, 10))
    )
    assert items[0]["prev-id"] == "e.0"
    assert items[-1]["id"] == "e.9"
    assert len(items) < 9


def test_an_offer_never_expires(control_down, outcomes, reports, tuned):
    tuned(RETRY_FOR=0.1)
    offer(control_down, chain(1, 3), outcomes)
    wait_until(lambda: counters(control_down)["retried"] >= 4, "repetitions")
    assert get_publisher().trouble(control_down.url)
    control_down.up()
    wait_until(lambda: outcomes, "the outcome")
    assert outcomes == [{}]
    assert control_down.text == "1,2,"
    assert not reports.failed
    assert get_publisher().trouble(control_down.url) == ""


def test_what_is_taken_back_is_nobodys_failure(control_down, outcomes, reports, caplog):
    take_back = offer(control_down, chain(1, 3), outcomes)
    wait_until(lambda: counters(control_down)["retried"] >= 1, "a repetition")
    take_back()
    assert [sorted(outcome) for outcome in outcomes] == [[0, 1]]
    assert not any(isinstance(why, Refusal) for why in outcomes[0].values())
    caplog.clear()
    get_publisher().close(timeout=0)
    assert not reports.failed
    assert not caplog.records


def test_an_item_that_is_refused_alone_is_refused_for_good(control, outcomes, reports):
    def behave(connection, post):
        bad = any("2," in text for text in post.contents)
        return (Answer(400, "bad item") if bad else Answer())(connection, post)

    control.behaviour = behave
    offer(control, chain(1, 4), outcomes)
    wait_until(lambda: outcomes, "the outcome")
    assert list(outcomes[0]) == [1]
    assert isinstance(outcomes[0][1], Refusal)
    assert [item.id for item, _, _ in reports.failed] == ["e.2"]
    assert control.text == "1,3,"


def test_an_error_that_may_pass_is_no_refusal(control, outcomes, reports):
    control.behaviour = Answer(403, "not with this key")
    offer(control, chain(1, 2), outcomes)
    wait_until(lambda: outcomes, "the outcome")
    assert "403" in outcomes[0][0]
    assert not isinstance(outcomes[0][0], Refusal)
    assert not reports.failed


def test_other_publishers_are_one_server(monkeypatch, outcomes):
    monkeypatch.setattr(locmem, "outbox", [])
    publisher = locmem.Publisher()
    [server] = publisher.servers
    assert server == "django_grip.publishers.locmem.Publisher"
    publisher.offer(server, chain(1, 3), outcomes.append)
    assert outcomes == [{}]
    assert [item.id for item in locmem.outbox] == ["e.1", "e.2"]
    assert publisher.trouble(server) == ""


def test_another_publisher_that_fails_is_offered_again_later(outcomes):
    class Failing(console.Publisher):
        def publish(self, items):
            raise PublishError({"somewhere": "no route"})

    publisher = Failing()
    publisher.offer(publisher.servers[0], chain(1, 3), outcomes.append)
    assert sorted(outcomes[0]) == [0, 1]
    assert "no route" in outcomes[0][0]
