"""The pages in a real browser, two windows at a time."""

import json
import os

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from clients import request
from servers import ROOT

pytestmark = pytest.mark.chromium


@pytest.fixture
def windows(driver):
    """Two windows; a page opened in one does not know of the other."""
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


def open_page(driver, url):
    driver.get(url)
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
    """A 502 ends an EventSource for good; the page has to make a new one."""
    lot = lots(site)[5]
    script = driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": COUNT_REFUSALS}
    )
    open_page(driver, site.url + "/")
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    driver.execute_script("window.mark = 'not reloaded'")
    site.stop_django()
    site.stop_proxy()
    until(driver, lambda driver: state(driver) == "lost")
    site.start_proxy()
    try:
        assert request(f"{site.url}/api/lots/stream/").status == 502
        until(driver, lambda driver: driver.execute_script("return refusals > 1"))
    finally:
        site.start_django()
    # Published while nobody listens: the page has to ask for it when it is back.
    amount = float(lot["current_price"]) + 30
    request_bid(site, lot, amount)
    until(driver, lambda driver: state(driver) == "open")
    until(driver, lambda driver: price(driver, lot["id"]) == amount)
    assert driver.execute_script("return window.mark") == "not reloaded"


COUNT_REFUSALS = """
window.refusals = 0;
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    this.addEventListener("error", () => {
      if (this.readyState === EventSource.CLOSED) window.refusals += 1;
    });
  }
};
"""


def request_bid(site, lot, amount):
    answer = request(
        f"{site.url}/api/lots/{lot['id']}/bid/",
        "POST",
        {"bidder": "paddle-9", "amount": f"{amount:.2f}"},
    )
    assert answer.status == 201, answer.body


def publish(site, pk, data, ts):
    """Post an event to the control port, as a web worker would."""
    envelope = {"op": "update", "pk": pk, "ts": ts, "data": data}
    content = f"event: update\ndata: {json.dumps(envelope)}\n\n"
    item = {"channel": "auction.lot", "formats": {"http-stream": {"content": content}}}
    url = f"http://127.0.0.1:{site.control_port}/publish/"
    assert request(url, "POST", {"items": [item]}).status == 200


def test_an_older_event_that_comes_late_does_not_win(site, driver, windows):
    lot, marker = lots(site)[:2]
    open_page(driver, site.url + "/")
    newer = {**lot, "current_price": "9000.00"}
    older = {**lot, "current_price": "8000.00"}
    publish(site, lot["id"], newer, "2099-01-01T00:00:00.200Z")
    publish(site, lot["id"], older, "2099-01-01T00:00:00.100Z")
    publish(
        site,
        marker["id"],
        {**marker, "current_price": "7000.00"},
        "2099-01-01T00:00:00.000Z",
    )
    until(driver, lambda driver: price(driver, marker["id"]) == 7000)
    assert price(driver, lot["id"]) == 9000


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
