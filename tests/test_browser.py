"""The pages in a real browser, two windows at a time."""

import contextlib
import http.client
import itertools
import os
import signal
import socket
import sqlite3
import threading

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from clients import EventStream, request
from pushpin import session_members
from servers import MANAGE, ROOT, Process, wait_until

pytestmark = pytest.mark.chromium
with_pushpin = pytest.mark.parametrize(
    "proxy", [pytest.param("pushpin", marks=pytest.mark.pushpin)], indirect=True
)
with_localproxy = pytest.mark.parametrize("proxy", ["localproxy"], indirect=True)


@pytest.fixture
def windows(driver):
    """Two windows, and nobody logged in; a page opened in one does not know of the
    other.
    """
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    first = driver.current_window_handle
    driver.switch_to.new_window("window")
    second = driver.current_window_handle
    yield first, second
    driver.switch_to.window(second)
    driver.close()
    driver.switch_to.window(first)
    driver.get("about:blank")


def until(driver, condition, timeout=30):
    return WebDriverWait(driver, timeout, 0.05).until(condition)


def state(driver):
    return driver.find_element(By.TAG_NAME, "body").get_attribute("data-stream-state")


def open_page(driver, url, script=None):
    """Open a page and wait for its stream; `script` runs before the page's own."""
    if script is not None:
        added = driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": script}
        )
    driver.get(url)
    if script is not None:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    until(driver, lambda driver: state(driver) == "open")


def price(driver, lot):
    selector = f'[data-lot-id="{lot}"] [data-field="current_price"]'
    text = driver.find_element(By.CSS_SELECTOR, selector).text
    return float(text.replace(",", "").strip("$€£ "))


def lots(site):
    return request(f"{site.url}/api/lots/").json()


def bid_by_form(driver, lot, amount):
    form = driver.find_element(By.CSS_SELECTOR, f'[data-lot-id="{lot}"] form')
    field = form.find_element(By.NAME, "amount")
    field.clear()
    field.send_keys(str(amount))
    form.find_element(By.CSS_SELECTOR, "button").click()


def test_a_bid_in_one_window_changes_the_other_without_reload(site, driver, windows):
    first, second = windows
    lot = lots(site)[0]
    amount = float(lot["current_price"]) + 50
    driver.switch_to.window(second)
    open_page(driver, site.url + "/")
    driver.execute_script("window.mark = 'not reloaded'")
    driver.switch_to.window(first)
    open_page(driver, f"{site.url}/lots/{lot['id']}/")
    bid_by_form(driver, lot["id"], amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    driver.switch_to.window(second)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    assert driver.execute_script("return window.mark") == "not reloaded"


def test_a_lots_page_shows_its_bids_as_they_come_and_no_others(site, driver, windows):
    lot, other = lots(site)[1:3]
    open_page(driver, f"{site.url}/lots/{lot['id']}/")
    amount = float(lot["current_price"]) + 70
    for target, bidder in ((other, "paddle-elsewhere"), (lot, "paddle-here")):
        target_amount = float(target["current_price"]) + 70
        answer = request(
            f"{site.url}/api/lots/{target['id']}/bid/",
            "POST",
            {"bidder": bidder, "amount": f"{target_amount:.2f}"},
        )
        assert answer.status == 201, answer.body
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    text = driver.find_element(By.TAG_NAME, "main").text
    assert "paddle-here" in text
    assert "paddle-elsewhere" not in text


def test_a_refused_bid_shows_the_reason(site, driver, windows):
    lot = lots(site)[3]
    open_page(driver, f"{site.url}/lots/{lot['id']}/")
    bid_by_form(driver, lot["id"], "0.01")
    until(
        driver,
        lambda driver: "Bid at least" in driver.find_element(By.TAG_NAME, "main").text,
    )


def test_markup_in_a_title_stays_text(site, driver, windows):
    lot = lots(site)[4]
    open_page(driver, site.url + "/")
    title = "<img src=x onerror=alert(1)>"
    code = f"""
from auction.models import Lot
lot = Lot.objects.get(pk={lot["id"]})
lot.title = {title!r}
lot.save()
"""
    site.manage("shell", "--verbosity=0", "--command", code)
    try:
        card = driver.find_element(By.CSS_SELECTOR, f'[data-lot-id="{lot["id"]}"]')
        until(driver, lambda driver: title in card.text)
        assert not card.find_elements(By.CSS_SELECTOR, "[onerror]")
    finally:
        site.manage(
            "shell",
            "--verbosity=0",
            "--command",
            code.replace(repr(title), repr(lot["title"])),
        )


def test_lots_come_and_go(site, driver, windows):
    open_page(driver, site.url + "/")
    code = """
from datetime import timedelta
from django.utils import timezone
from auction.models import Lot
lot = Lot.objects.create(pk=7777, title="Newcomer", category="Clocks",
    starting_price=10, closes_at=timezone.now() + timedelta(days=1))
"""
    card = '[data-lot-id="7777"]'
    site.manage("shell", "--verbosity=0", "--command", code)
    until(driver, lambda driver: driver.find_elements(By.CSS_SELECTOR, card))
    assert price(driver, 7777) == 10
    site.manage(
        "shell",
        "--verbosity=0",
        "--command",
        "from auction.models import Lot; Lot.objects.get(pk=7777).delete()",
    )
    until(driver, lambda driver: not driver.find_elements(By.CSS_SELECTOR, card))


def test_a_restart_of_django_is_not_even_seen(site, driver, windows):
    lot = lots(site)[5]
    open_page(driver, site.url + "/")
    site.stop_django()
    assert state(driver) == "open"
    site.start_django()
    amount = float(lot["current_price"]) + 30
    request_bid(site, lot, amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)


def test_a_stream_refused_while_django_is_away_comes_back_with_the_right_price(
    site, driver, windows
):
    lot = lots(site)[5]
    open_page(driver, site.url + "/", WATCH)
    driver.execute_script("window.mark = 'not reloaded'")
    site.stop_django()
    site.stop_proxy()
    until(driver, lambda driver: state(driver) == "stale")
    site.start_proxy()
    try:
        assert request(f"{site.url}/api/lots/stream/").status == 502
        until(driver, lambda driver: driver.execute_script("return refusals > 1"))
        # Published while nobody listens: the page has to ask for it when it is back.
        amount = float(lot["current_price"]) + 30
        code = "from auction.bidding import place_bid; from decimal import Decimal; "
        code += f"place_bid({lot['id']}, 'paddle-9', Decimal('{amount}'))"
        site.manage("shell", "--verbosity=0", "--command", code)
    finally:
        site.start_django()
    until(driver, lambda driver: state(driver) == "open")
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    assert driver.execute_script("return window.mark") == "not reloaded"


def request_bid(site, lot, amount):
    answer = request(
        f"{site.url}/api/lots/{lot['id']}/bid/",
        "POST",
        {"bidder": "paddle-9", "amount": f"{amount:.2f}"},
    )
    assert answer.status == 201, answer.body


def tell(driver, **envelope):
    """Let the page's stream bring an event that no proxy would let through."""
    driver.execute_script(
        """const [envelope] = arguments;
        const {epoch, tell} = opened.at(-1);
        const data = JSON.stringify(envelope);
        tell(`event: update\\nid: ${epoch}.${envelope.seq}\\ndata: ${data}\\n\\n`);""",
        {"op": "update", **envelope},
    )


def test_an_event_that_comes_again_or_late_does_not_win(site, driver, windows):
    lot = lots(site)[0]
    open_page(driver, site.url + "/", WATCH)
    amount = float(lot["current_price"]) + 11
    request_bid(site, lot, amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    seq = heard(driver)[-1]
    wrong = {**lots(site)[0], "current_price": "9000.00"}
    for late in (seq, seq - 1):
        tell(driver, pk=lot["id"], seq=late, prev=late - 1, data=wrong)
    assert price(driver, lot["id"]) == amount
    assert driver.execute_script("return opened.length") == 1


def test_a_gap_that_reached_the_page_is_asked_for(site, driver, windows):
    """For instance where no proxy has a key, so that none can heal it."""
    lot = lots(site)[0]
    open_page(driver, site.url + "/", WATCH)
    amount = float(lot["current_price"]) + 11
    request_bid(site, lot, amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    seq = heard(driver)[-1]
    driver.execute_script("window.losing = true")
    request_bid(site, lot, amount + 20)
    until(driver, lambda driver: driver.execute_script("return lost.length") == 1)
    driver.execute_script("window.losing = false")
    request_bid(site, lot, amount + 50)
    until(driver, lambda driver: price(driver, lot["id"]) == amount + 50)
    until(driver, lambda driver: state(driver) == "open")
    assert f"?since={epoch(site)}.{seq}" in driver.execute_script(
        "return opened.at(-1).url"
    )
    assert shown(driver)[str(lot["id"])][-2:] == [amount + 20, amount + 50]


def test_a_position_that_means_nothing_any_more_has_the_rows_asked_for(
    site, driver, windows
):
    """As after a backup of the database was restored."""
    lot = lots(site)[2]
    open_page(driver, site.url + "/", WATCH)
    amount = float(lot["current_price"]) + 60
    request_bid(site, lot, amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    site.stop_proxy()
    until(driver, lambda driver: state(driver) == "stale")
    query(site, "UPDATE grip_eventlog_sequence SET epoch = 'another'")
    query(
        site,
        "UPDATE auction_lot SET current_price = 7, bid_count = 0 "
        f"WHERE id = {lot['id']}",
    )
    site.start_proxy()
    until(driver, lambda driver: price(driver, lot["id"]) == 7)
    request_bid(site, lot, 1000000)
    until(driver, lambda driver: price(driver, lot["id"]) == 1000000)


@contextlib.contextmanager
def streams_blocked(driver):
    """No stream of a page is opened within the block."""
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/stream/*"]})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        driver.execute_cdp_cmd("Network.disable", {})


HAS_ROWS = """return performance.getEntriesByType("resource").some(
  ({name, responseEnd}) => name.endsWith("/api/lots/") && responseEnd)"""


@with_localproxy
def test_a_bid_between_the_page_and_its_stream_is_shown(site, driver, windows):
    lot = lots(site)[2]
    with streams_blocked(driver):
        driver.get(site.url + "/")
        until(driver, lambda driver: driver.execute_script(HAS_ROWS))
        assert state(driver) == "connecting"
        amount = float(lot["current_price"]) + 60
        with EventStream(f"{site.url}/api/lots/stream/") as stream:
            stream.next()
            request_bid(site, lot, amount)
            # The lots themselves may still be news.
            wait_until(lambda: stream.next().event == "update", "the bid is published")
        assert price(driver, lot["id"]) == float(lot["current_price"])
    until(driver, lambda driver: price(driver, lot["id"]) == amount)


class Forwarder:
    """A line to a port; those that are open can go dead without a sign.

    `heard` is all that came through it from there.
    """

    def __init__(self, port):
        self._target = port
        self.heard = bytearray()
        self._dead = threading.Event()
        self._sockets = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def go_dead(self):
        """From now on nothing comes through what is open."""
        self._dead.set()
        self._dead = threading.Event()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for pair in ((near, far, bytearray()), (far, near, self.heard)):
                    threading.Thread(
                        target=self._carry, args=(*pair, self._dead), daemon=True
                    ).start()

    def _carry(self, source, target, heard, dead):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                heard += data
                if not dead.is_set():
                    target.sendall(data)
            if not dead.is_set():
                target.shutdown(socket.SHUT_WR)


def test_a_stream_that_went_silent_is_opened_anew(site, driver, windows):
    """A connection may die without either end being told."""
    lot = lots(site)[1]
    with Forwarder(site.port) as line:
        url = f"http://127.0.0.1:{line.port}/"
        open_page(driver, url, WATCH + HURRY)
        line.go_dead()
        amount = float(lot["current_price"]) + 40
        request_bid(site, lot, amount)
        until(driver, lambda driver: price(driver, lot["id"]) == amount)
        driver.get("about:blank")


def log_in(driver, url, name):
    driver.get(f"{url}/login/")
    driver.find_element(By.NAME, "username").send_keys(name)
    driver.find_element(By.NAME, "password").send_keys(name)
    driver.find_element(By.CSS_SELECTOR, "main button").click()
    until(driver, lambda driver: driver.find_elements(By.LINK_TEXT, "My bids"))


ALL_HISTORY = """
const [position, done] = arguments;
fetch(`/api/lots/stream/?wait=0&since=${position}`)
  .then((answer) => answer.json())
  .then(({events}) => done(events.length));
"""


def test_s42_the_reserve_price_reaches_the_staff_and_no_byte_of_it_anybody_else(
    site, driver, windows
):
    staff, other = windows
    lot = lots(site)[0]
    driver.switch_to.window(staff)
    log_in(driver, site.url, "admin")
    open_page(driver, site.url + "/")
    with Forwarder(site.port) as line:
        # Another host to the browser: its cookies are another user's.
        url = f"http://localhost:{line.port}"
        driver.switch_to.window(other)
        log_in(driver, url, "bidder")
        open_page(driver, url + "/")
        code = "from auction.models import Lot; "
        code += f"lot = Lot.objects.get(pk={lot['id']}); "
        code += "lot.reserve_price = '7777.77'; lot.save()"
        site.manage("shell", "--verbosity=0", "--command", code)
        amount = float(lot["current_price"]) + 15
        request_bid(site, lot, amount)
        until(driver, lambda driver: price(driver, lot["id"]) == amount)
        assert driver.execute_async_script(ALL_HISTORY, f"{epoch(site)}.0") >= 2
        driver.switch_to.window(staff)
        reserve = f'[data-lot-id="{lot["id"]}"] [data-field="reserve_price"]'
        until(
            driver,
            lambda driver: (
                driver.find_element(By.CSS_SELECTOR, reserve).text == "7777.77"
            ),
        )
        driver.switch_to.window(other)
        assert not driver.find_elements(By.CSS_SELECTOR, reserve)
        driver.get("about:blank")
        assert f"{amount:.2f}".encode() in line.heard
        assert b"7777.77" not in line.heard
        assert b"reserve" not in line.heard.lower()


def own_bids(driver):
    return [each.text for each in driver.find_elements(By.CSS_SELECTOR, "main li")]


BID = """
const [path, amount, done] = arguments;
const [, token] = /csrftoken=(\\w+)/.exec(document.cookie);
fetch(path, {
  method: "POST",
  headers: {"Content-Type": "application/json", "X-CSRFToken": token},
  body: JSON.stringify({bidder: "me", amount}),
}).then((answer) => done(answer.status));
"""


def test_s32_a_logout_in_one_window_ends_the_private_stream_of_another(
    site, driver, windows
):
    first, second = windows
    lot = lots(site)[3]
    driver.switch_to.window(first)
    log_in(driver, site.url, "bidder")
    open_page(driver, f"{site.url}/bids/")
    before = own_bids(driver)
    request_bid(site, lot, float(lot["current_price"]) + 20)
    amount = float(lot["current_price"]) + 45
    path = f"/api/lots/{lot['id']}/bid/"
    assert driver.execute_async_script(BID, path, f"{amount:.2f}") == 201
    # Nothing of what somebody else has bid.
    until(
        driver,
        lambda driver: own_bids(driver) == [f"{lot['title']} €{amount:.2f}", *before],
    )
    driver.switch_to.window(second)
    driver.get(site.url + "/")
    driver.find_element(By.CSS_SELECTOR, ".user button").click()
    driver.switch_to.window(first)
    until(driver, lambda driver: state(driver) == "denied")
    assert own_bids(driver) == []


HURRY = """
const now = Date.now;
const start = now();
Date.now = () => start + 50 * (now() - start);
"""


class Bidders(threading.Thread):
    """Bid on every lot in turn, until told to stop, whoever is killed meanwhile.

    They bid at gunicorn itself, so that a dead proxy does not silence them.
    """

    def __init__(self, site):
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{site.django_port}/api/lots/"
        self._stopped = threading.Event()
        self.placed = 0

    def __enter__(self):
        self.start()
        self.go_on()
        return self

    def __exit__(self, *exc_info):
        self._stopped.set()
        self.join()

    def go_on(self):
        """Until some more bids are placed, after whatever happened before."""
        enough = self.placed + 10
        wait_until(lambda: self.placed >= enough, "bids are placed")

    def run(self):
        for number in itertools.count():
            if self._stopped.wait(0.02):
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = request(self._url)
                found = answer.json() if answer.status == 200 else []
                if found:
                    lot = found[number % len(found)]
                    bid = {"bidder": "paddle-8", "amount": lot["next_bid"]}
                    answer = request(f"{self._url}{lot['id']}/bid/", "POST", bid)
                    self.placed += answer.status == 201


def kill_9(leader):
    """Kill all processes of a session, the leader first."""
    leader.kill()
    for pid in session_members(leader.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    leader.wait()
    wait_until(lambda: not session_members(leader.pid), "they are dead")


def kill_proxy(site):
    kill_9(site._proxy.process if site.proxy == "pushpin" else site._proxy.popen)


def query(site, statement):
    database = sqlite3.connect(site.env["SAMPLE_DB"], 20)
    with contextlib.closing(database), database:
        return database.execute(statement).fetchall()


def epoch(site):
    return query(site, "SELECT epoch FROM grip_eventlog_sequence")[0][0]


def relaying(site):
    """The id of the process whose relay has the lease; None if none has."""
    [(owner,)] = query(site, "SELECT lease_owner FROM grip_eventlog_sequence")
    return int(owner.split(":")[1]) if owner else None


def published(site):
    """The last event that the proxy has taken."""
    return query(site, "SELECT MAX(published) FROM grip_eventlog_target")[0][0]


def let_the_lease_run_out(site):
    """As ten seconds after the death of who had it."""
    query(site, "UPDATE grip_eventlog_sequence SET lease_until = '2000-01-01'")


def heard(driver):
    """The seqs of all events that came, in the order in which they came."""
    return driver.execute_script("return heard")


def shown(driver):
    """All prices that the page has shown, by lot."""
    return driver.execute_script("return shown")


def check_all_is_well(site, driver):
    """The page has the prices of the database, heard all, and never went back."""
    direct = f"http://127.0.0.1:{site.django_port}/api/lots/"
    prices = {lot["id"]: float(lot["current_price"]) for lot in request(direct).json()}
    until(
        driver,
        lambda driver: prices == {lot: price(driver, lot) for lot in prices},
    )
    events = heard(driver)
    rows = query(
        site,
        "SELECT seq FROM grip_eventlog_loggedevent "
        f"WHERE channel = 'auction.lot~as.public' AND seq >= {events[0]}",
    )
    assert sorted(set(events)) == [seq for (seq,) in rows]
    for values in shown(driver).values():
        assert values == sorted(values)
    assert sum(map(len, shown(driver).values())) >= 20
    assert state(driver) == "open"


WATCH = """
window.opened = [];
window.refusals = 0;
window.heard = [];
window.lost = [];
window.losing = false;
window.shown = {};
const fetchAsItIs = window.fetch;
window.fetch = async (url, init) => {
  const response = await fetchAsItIs(url, init);
  if (!String(url).includes("/stream/")) return response;
  if (!response.ok) refusals += 1;
  return response.ok ? overheard(response, String(url)) : response;
};
function overheard(response, url) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const stream = {url};
  let text = "";
  function listen(more) {
    const blocks = (text + more).split("\\n\\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (!data) continue;
      const {position, seq} = JSON.parse(data);
      if (position) stream.epoch = position.split(".")[0];
      if (seq) (losing ? lost : heard).push(seq);
    }
  }
  opened.push(stream);
  const body = new ReadableStream({
    start(controller) {
      const encoder = new TextEncoder();
      stream.tell = (block) => controller.enqueue(encoder.encode(block));
    },
    async pull(controller) {
      for (let hasSome = false; !hasSome; ) {
        const {done, value} = await reader.read();
        if (done) return controller.close();
        hasSome = !losing;
        if (hasSome) controller.enqueue(value);
        listen(decoder.decode(value, {stream: true}));
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, {headers: response.headers});
}
new MutationObserver((records) => {
  for (const {target, addedNodes} of records) {
    if (target.dataset?.field !== "current_price") continue;
    const lot = target.closest("[data-lot-id]").dataset.lotId;
    const prices = [...addedNodes].map((node) => Number(node.data));
    (shown[lot] ??= []).push(...prices);
  }
}).observe(document, {subtree: true, childList: true});
"""


@with_pushpin
def test_the_page_survives_kill_9_of_the_relay_in_a_web_worker(site, driver, windows):
    open_page(driver, site.url + "/", WATCH)
    with Bidders(site) as bidders:
        pid = relaying(site)
        assert pid in session_members(site._django.popen.pid)
        os.kill(pid, signal.SIGKILL)
        bidders.go_on()
        let_the_lease_run_out(site)
        bidders.go_on()
        wait_until(lambda: relaying(site) not in (None, pid), "another takes over")
    check_all_is_well(site, driver)


def test_the_page_survives_kill_9_of_django(site, driver, windows):
    open_page(driver, site.url + "/", WATCH)
    with Bidders(site) as bidders:
        kill_9(site._django.popen)
        let_the_lease_run_out(site)
        site.start_django()
        bidders.go_on()
    check_all_is_well(site, driver)


def test_the_page_survives_kill_9_of_the_proxy(site, driver, windows):
    open_page(driver, site.url + "/", WATCH)
    with Bidders(site) as bidders:
        kill_proxy(site)
        until(driver, lambda driver: state(driver) == "stale")
        with streams_blocked(driver):
            before = published(site)
            site.stop_proxy()
            site.start_proxy()
            bidders.go_on()
            # Nobody has heard these, and nobody will publish them again.
            wait_until(lambda: published(site) > before, "the proxy takes events")
    check_all_is_well(site, driver)


@pytest.fixture
def start_relay(site):
    """Starts a relay for the site, which has none in its workers then."""
    started = []

    def start():
        command = [*MANAGE, "grip_relay"]
        started.append(Process(command, site.directory / "relay.log", site.env))
        return started[-1].popen

    site.stop_django()
    site.env["SAMPLE_RELAY"] = "daemon"
    site.start_django()
    yield start
    for process in started:
        process.stop()
    del site.env["SAMPLE_RELAY"]
    site.stop_django()
    site.start_django()


@with_pushpin
def test_the_page_survives_kill_9_of_the_relay_and_then_of_everything(
    site, driver, windows, start_relay
):
    with Bidders(site) as bidders:
        # Without a relay the rows are ahead of the stream.
        open_page(driver, site.url + "/", WATCH)
        relay = start_relay()
        until(driver, heard)
        kill_9(relay)
        bidders.go_on()
        let_the_lease_run_out(site)
        relay = start_relay()
        wait_until(lambda: relaying(site) == relay.pid, "the next relay works")
        bidders.go_on()
        kill_9(relay)
        kill_9(site._django.popen)
        kill_proxy(site)
        let_the_lease_run_out(site)
        site.start_django()
        site.stop_proxy()
        site.start_proxy()
        start_relay()
        bidders.go_on()
    check_all_is_well(site, driver)


def layout(driver):
    """The boxes of every card and of the body, to see whether something jumps."""
    return driver.execute_script(
        """return [...document.querySelectorAll('[data-lot-id], [data-lot-id] *, body')]
        .map(e => e.getBoundingClientRect())
        .map(r => [r.x, r.y, r.height].map(Math.round).join())"""
    )


def test_nothing_jumps_on_an_update(site, driver, windows):
    lot = lots(site)[0]
    driver.set_window_size(1280, 720)
    open_page(driver, site.url + "/")
    before = layout(driver)
    amount = float(lot["current_price"]) + 11
    request_bid(site, lot, amount)
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    assert layout(driver) == before


@pytest.mark.parametrize("path", ["/", "/lots/1/"])
def test_the_pages_are_readable_at_400_pixels(site, driver, windows, path):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        open_page(driver, site.url + path)
        assert (
            driver.execute_script("return document.documentElement.scrollWidth") <= 400
        )
        sizes = driver.execute_script(
            """return [...document.querySelectorAll('main *')]
            .filter(e => e.offsetParent && [...e.childNodes]
                .some(n => n.nodeType === 3 && n.data.trim()))
            .map(e => parseFloat(getComputedStyle(e).fontSize))"""
        )
        assert min(sizes) >= 12
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_screenshot_of_the_readme_is_taken(site, driver, windows, tmp_path):
    """With UPDATE_SCREENSHOT=1 it replaces the one in the repository."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        open_page(driver, site.url + "/")
        path = tmp_path / "auction.png"
        driver.save_screenshot(str(path))
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    with Image.open(path) as image:
        assert image.size == (1280, 720)
        # A blank page has one colour.
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 100
    kept = ROOT / "docs" / "auction.png"
    if os.environ.get("UPDATE_SCREENSHOT"):
        kept.write_bytes(path.read_bytes())
    with Image.open(kept) as image:
        assert image.size == (1280, 720)
    assert "docs/auction.png" in (ROOT / "README.md").read_text()
