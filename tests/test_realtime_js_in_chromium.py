"""realtime.js in a real browser, against Django behind the local proxy."""

import json
import os
import random
import signal

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from client_sites import ClientSite
from pushpin import session_members
from servers import wait_until

pytestmark = pytest.mark.chromium

TRANSPORTS = ["sse", "websocket", "socket"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with ClientSite(tmp_path_factory.mktemp("client")) as site:
        yield site


@pytest.fixture
def page(site, driver):
    """An empty page of the site, with the module as `realtime`."""
    driver.get(f"{site.url}/page/")
    driver.delete_all_cookies()
    driver.get(f"{site.url}/page/")
    driver.execute_async_script(
        """const done = arguments[0];
        import("/static/grip_rest_framework/realtime.js").then((module) => {
          window.realtime = module;
          window.states = [];
          // Pauses are spread by luck, and here they are short.
          Math.random = () => 0.1;
          done();
        });"""
    )
    yield driver
    driver.get("about:blank")


OPEN = """
const [what, url, transport, options] = arguments;
window.shared = transport === "socket" ? realtime.socket("/realtime/") : null;
if (shared) options.socket = shared;
else options.transport = transport;
window.followed = realtime[what](url, options);
followed.on("state", (state) => states.push(state));
followed.on("event", (event) => (window.last = event));
"""


def follow(page, url, transport="sse", what="collection", **options):
    page.execute_script(OPEN, what, url, transport, options)


def until(page, script, what=None):
    """Wait until an expression of JavaScript is true, and return its value."""
    return WebDriverWait(page, 20, 0.05).until(
        lambda page: page.execute_script(f"return {script}"), what or script
    )


def is_open(page):
    until(page, "followed.state === 'open'")


def check_equal(page, site, path="/shipments/"):
    """The rows of the page become those of the server."""

    def rows(found):
        return {row["id"]: row for row in found}

    def shown():
        return rows(page.execute_script("return [...followed.values()]"))

    expected = rows(site.ask(path))
    wait_until(lambda: shown() == expected, "the rows are those of the server")
    is_open(page)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_list_follows_what_is_written(site, page, transport):
    pks = [site.create(status="first") for _ in range(3)]
    follow(page, "/shipments/stream/", transport)
    is_open(page)
    check_equal(page, site)
    site.change(pks[0], status="second")
    site.delete(pks[1])
    site.create(status="new", note="Grüße <b>&amp;</b> 👋")
    check_equal(page, site)
    assert page.execute_script("return states") == ["open"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_list_stays_equal_while_everything_dies(site, page, transport):
    generator = random.Random(transport)
    pks = [site.create(status=f"first {number}") for number in range(20)]
    follow(page, "/shipments/stream/", transport)
    is_open(page)

    def write():
        for number in range(20):
            pk = generator.choice(pks)
            kind = generator.random()
            if kind < 0.1:
                pks.append(site.create(status=f"new {number}"))
            elif kind < 0.2:
                pks.remove(pk)
                site.delete(pk)
            else:
                site.change(pk, status=f"{transport} {number} {kind}")

    write()
    check_equal(page, site)
    # The proxy: what is written meanwhile reaches nobody.
    site._proxy.kill()
    until(page, "followed.state === 'stale'")
    write()
    site.start_proxy()
    check_equal(page, site)
    # Django.
    for pid in session_members(site._django.popen.pid):
        os.kill(pid, signal.SIGKILL)
    site._django.popen.wait()
    # It comes back to a site that gives 502.
    page.execute_script("followed.reopen()")
    until(page, "followed.state === 'stale'")
    site.start_django()
    write()
    check_equal(page, site)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_snapshot_is_the_rows(site, page, transport):
    for number in range(30):
        site.create(status=f"row {number}", note="x" * 1000)
    follow(page, "/shipments/stream/", transport, snapshot=True)
    is_open(page)
    asked = page.execute_script(
        "return performance.getEntriesByType('resource').map(({name}) => name)"
    )
    assert not [url for url in asked if url.endswith("/shipments/")]
    check_equal(page, site)
    site.create(status="after")
    check_equal(page, site)


LOSSY = """
// Messages that `isLost` names do not arrive, and the first resume waits for the test.
window.isLost = () => false;
const WebSocketAsItIs = window.WebSocket;
window.WebSocket = class extends WebSocketAsItIs {
  set onmessage(listener) {
    super.onmessage = (event) => isLost(event.data) || listener(event);
  }
};
const setTimeoutAsItIs = window.setTimeout;
window.setTimeout = (call, delay) => {
  if (delay !== 1500) return setTimeoutAsItIs(call, delay);
  window.resume = call;
};
"""
PUBLISHED = """(data) =>
  data.includes('"op":') && !data.includes('"resumed"')"""


@pytest.mark.parametrize("transport", ["websocket", "socket"])
def test_a_gap_in_a_websocket_is_resumed(site, page, transport):
    pk = site.create(status="first")
    page.execute_script(LOSSY)
    follow(page, "/shipments/stream/", transport)
    is_open(page)
    page.execute_script(f"window.isLost = {PUBLISHED} && (window.lost = true)")
    site.change(pk, status="lost")
    until(page, "window.lost")
    page.execute_script("window.isLost = () => false")
    other = site.create(status="shows the gap")
    until(page, f"followed.has({other})")
    assert page.execute_script("return states") == ["open", "stale", "open"]
    check_equal(page, site)


@pytest.mark.parametrize("transport", ["websocket", "socket"])
def test_what_passed_before_the_subscription_is_there_soon(site, page, transport):
    pk = site.create(status="first")
    page.execute_script(LOSSY)
    follow(page, "/shipments/stream/", transport)
    is_open(page)
    page.execute_script(f"window.isLost = {PUBLISHED} && (window.lost = true)")
    site.change(pk, status="in between")
    until(page, "window.lost")
    # Nothing comes after it.
    page.execute_script("resume()")
    check_equal(page, site)


@pytest.mark.parametrize("path", ["paged", "cursor"])
def test_a_list_in_pages_is_whole(site, page, path):
    for number in range(50):
        site.create(status=f"row {number}")
    follow(page, f"/{path}/stream/")
    is_open(page)
    check_equal(page, site)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_thin_events_have_their_rows_asked_for(site, page, transport):
    follow(page, "/tags/stream/", transport)
    is_open(page)
    tag = site.ask("/tags/", "POST", {"name": "new"})
    check_equal(page, site, "/tags/")
    site.ask(f"/tags/{tag['id']}/", "PUT", {"name": "named anew"})
    check_equal(page, site, "/tags/")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_is_not_logged_in_is_denied_until_then(site, page, transport):
    follow(page, "/mine/stream/", transport, what="stream")
    until(page, "followed.state === 'denied'")
    assert page.execute_script("return followed.problem.status") in (401, 403)
    log_in(page, "ann")
    page.execute_script("(window.shared ?? followed).reopen()")
    is_open(page)
    pk = site.create(status="for ann")
    until(page, f"window.last?.pk === {pk}")
    # Logging out ends it at once, and for good.
    page.execute_async_script("fetch('/logout/', {method: 'POST'}).then(arguments[0])")
    until(page, "followed.state === 'denied'")


def log_in(page, name):
    page.execute_async_script(
        """const [name, done] = arguments;
        fetch("/login/", {method: "POST", body: JSON.stringify({name})}).then(done);""",
        name,
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_s38_a_ticket_stands_for_a_header_and_is_fresh_each_time(site, page, transport):
    name = f"bob-{transport}"
    log_in(page, name)
    page.execute_async_script("fetch('/logout/', {method: 'POST'}).then(arguments[0])")
    headers = {"Authorization": f"Badge {name}"}
    options = {"what": "stream", "ticket": True, "headers": headers}
    follow(page, "/badged/stream/", transport, **options)
    is_open(page)
    pk = site.create(status="for bob")
    until(page, f"window.last?.pk === {pk}")
    asked = "performance.getEntriesByType('resource')"
    asked += ".filter(({name}) => name.endsWith('/ticket/')).length"
    assert page.execute_script(f"return {asked}") == 1
    site._proxy.kill()
    until(page, "followed.state === 'stale'")
    site.start_proxy()
    is_open(page)
    assert page.execute_script(f"return {asked}") >= 2
    site.change(pk, status="and on")
    until(page, "window.last?.data?.status === 'and on'")


def test_a_ticket_that_a_session_asks_for_passes_csrf(site, page):
    log_in(page, "carla")
    follow(page, "/mine/stream/", "websocket", what="stream", ticket=True)
    is_open(page)


def test_a_page_whose_network_is_back_does_not_wait(site, page):
    page.execute_script(
        """Math.random = () => 1;
        const setTimeoutAsItIs = window.setTimeout;
        // The pause after a failure does not end.
        window.setTimeout = (call, delay) =>
          delay < 1000 ? setTimeoutAsItIs(call, delay) : 0;"""
    )
    follow(page, "/shipments/stream/", what="stream")
    is_open(page)
    site._proxy.kill()
    until(page, "followed.problem?.message === 'Failed to fetch'")
    site.start_proxy()
    page.execute_script("window.dispatchEvent(new Event('online'))")
    is_open(page)


def test_streams_share_a_socket(site, page):
    page.execute_script(
        """window.shared = realtime.socket("/realtime/");
        window.heard = {};
        const urls = ["/shipments/stream/", "/tags/stream/", "/nowhere/stream/"];
        window.streams = urls.map(
          (url) => {
            const each = realtime.stream(url, {socket: shared});
            each.on("event", ({op}) => (heard[url] ??= []).push(op));
            return each;
          });"""
    )
    until(page, "streams.map(({state}) => state).join() === 'open,open,denied'")
    assert page.execute_script("return streams[2].problem.status") == 404
    pk = site.create(status="one")
    site.ask("/tags/", "POST", {"name": "two"})
    until(page, "Object.keys(heard).length === 2")
    page.execute_script("streams[0].close()")
    site.change(pk, status="three")
    site.ask("/tags/", "POST", {"name": "four"})
    until(page, "heard['/tags/stream/'].length === 2")
    assert page.execute_script("return heard['/shipments/stream/']") == ["create"]
    page.execute_script("shared.close()")
    assert page.execute_script("return streams[1].state") == "closed"


def test_nothing_is_said_of_a_ticket(site, page):
    """S47, in the page: neither the console nor an error has it."""
    log_in(page, "dora")
    page.get_log("browser")
    follow(page, "/mine/stream/", "websocket", what="stream", ticket=True)
    is_open(page)
    page.execute_async_script("fetch('/logout/', {method: 'POST'}).then(arguments[0])")
    until(page, "followed.state === 'denied'")
    said = page.get_log("browser")
    problem = page.execute_script("return String(followed.problem)")
    own = [line for line in said if "realtime.js" in line.get("source", "")]
    assert "ticket=" not in json.dumps([own, problem])
