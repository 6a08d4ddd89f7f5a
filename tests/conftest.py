"""Fixtures, and what happens where a system part is missing."""

import os
import shutil
import time

import jwt
import pytest
from django.conf import settings
from django.core.cache import cache
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from django_grip.contrib.realtime import durable
from django_grip.test import capture_published
from pushpin import Pushpin
from servers import Site
from tests.databases import SERVERS

PARTS = {
    "pushpin": lambda: not Pushpin.missing(),
    "postgresql": lambda: not SERVERS["postgresql"]().missing(),
    "nginx": lambda: bool(shutil.which("nginx")),
    "chromium": lambda: bool(shutil.which("chromium") and shutil.which("chromedriver")),
    "node": lambda: bool(shutil.which("node")),
    "npm": lambda: bool(shutil.which("npm")),
}


CHROMIUM_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]


def pytest_configure(config):
    for part in PARTS:
        config.addinivalue_line("markers", f"{part}: needs {part} (make system)")


def pytest_collection_modifyitems(config, items):
    """Skip what needs a missing part, and say so in one line; in CI that fails."""
    missing = {part for part, is_there in PARTS.items() if not is_there()}
    config.missing_parts = missing
    for item in items:
        for part in missing:
            if item.get_closest_marker(part):
                item.add_marker(pytest.mark.skip(reason=f"{part} missing: make system"))


def pytest_terminal_summary(terminalreporter, config):
    missing = getattr(config, "missing_parts", ())
    if missing:
        terminalreporter.write_line(
            f"Not run: the tests that need {' and '.join(sorted(missing))}. Install "
            "with: make system"
        )


def pytest_sessionfinish(session, exitstatus):
    if os.environ.get("CI") and getattr(session.config, "missing_parts", ()):
        session.exitstatus = 1


@pytest.fixture(autouse=True)
def fresh():
    """No test sees the cache of another."""
    cache.clear()


@pytest.fixture(autouse=True)
def no_log(request, monkeypatch):
    """The event log is installed, but only in use where a test asks for `log`."""
    if "log" not in request.fixturenames:
        monkeypatch.setattr(durable, "log", None)


@pytest.fixture
def log():
    """The event log in use: what is written goes to the outbox."""
    return durable.log


@pytest.fixture
def published():
    """What the test publishes; nothing leaves the process."""
    with capture_published() as items:
        yield items


@pytest.fixture
def grip_sig():
    """A Grip-Sig header as the proxy of the test settings signs it."""
    claims = {"iss": "pushpin", "exp": int(time.time()) + 3600}
    return jwt.encode(claims, settings.PROXY_KEY, algorithm="HS256")


@pytest.fixture
def through_proxy(client, grip_sig):
    """Django's test client, its requests signed as a proxy does."""
    client.defaults["HTTP_GRIP_SIG"] = grip_sig
    return client


@pytest.fixture(
    scope="module",
    params=["localproxy", pytest.param("pushpin", marks=pytest.mark.pushpin)],
)
def proxy(request):
    """The name of each proxy that the end-to-end tests run behind."""
    return request.param


@pytest.fixture(scope="module")
def site(proxy, tmp_path_factory):
    """The sample app behind each proxy."""
    with Site(tmp_path_factory.mktemp("site"), proxy) as site:
        yield site


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in CHROMIUM_FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()
