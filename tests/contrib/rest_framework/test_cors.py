"""Other origins: a stream is read from where the site says, and from nowhere else.

With django-cors-headers, through the local proxy. We send no such headers ourselves.
"""

import pytest

from tests.clients import EventStream, request
from tests.contrib.rest_framework.over_time_sites import Site

FRIEND, FOE = "https://shop.example", "https://evil.example"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("cors"), "localproxy") as site:
        yield site


@pytest.fixture(scope="module")
def cookie(site):
    return site.user("ann")


def allowed(headers):
    """Who may read an answer, and whether with cookies; never everybody."""
    assert headers["Access-Control-Allow-Origin"] != "*"
    return (
        headers["Access-Control-Allow-Origin"],
        headers["Access-Control-Allow-Credentials"],
    )


@pytest.mark.parametrize(
    ("origin", "expected"), [(FRIEND, (FRIEND, "true")), (FOE, (None, None))]
)
def test_s20_streams_are_read_from_configured_origins_only(
    site, cookie, origin, expected
):
    headers = {"Origin": origin, "Cookie": cookie, "Referer": f"{origin}/page"}
    with EventStream(f"{site.url}/private/stream/", headers) as stream:
        assert stream.status == 200
        assert allowed(stream.headers) == expected
        assert stream.next().event == "ready"
        assert "origin" in stream.headers["Vary"]
    poll = request(f"{site.url}/private/stream/?wait=0", headers=headers)
    assert (poll.status, allowed(poll.headers)) == (200, expected)
    ticket = f"{site.url}/private/stream/?ticket=none"
    for url, status in (
        (f"{site.url}/private/99/stream/", 404),
        (f"{site.url}/permitted/stream/", 403),
        (ticket, 401),
        (f"{site.url}/tags/stream/?name=a", 400),
    ):
        refused = request(url, headers=headers)
        assert (refused.status, allowed(refused.headers)) == (status, expected)


@pytest.mark.parametrize(("origin", "expected"), [(FRIEND, FRIEND), (FOE, None)])
def test_s20_the_ticket_is_asked_for_from_configured_origins_only(
    site, origin, expected
):
    answer = request(
        f"{site.url}/private/stream/ticket/",
        "OPTIONS",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == expected


def test_who_says_no_origin_gets_no_such_headers(site, cookie):
    with EventStream(f"{site.url}/private/stream/", {"Cookie": cookie}) as stream:
        assert allowed(stream.headers) == (None, None)
