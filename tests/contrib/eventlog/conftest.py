"""A control port, processes on the test's database, and tests of one database only."""

import tempfile
from contextlib import suppress

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from processes import Processes

from django_grip.publishers import get_publisher
from tests.publishers.control_port import ControlPort
from tests.shop.reading import configurator


def pytest_configure(config):
    config.addinivalue_line("markers", "only_on(*vendors): not elsewhere")


def pytest_collection_modifyitems(config, items):
    """A row that makes no sense on the database of this run is another run's."""
    here, elsewhere = [], []
    for item in items:
        marker = item.get_closest_marker("only_on")
        is_here = marker is None or connection.vendor in marker.args
        (here if is_here else elsewhere).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = here


@pytest.fixture
def own_slots(tmp_path, monkeypatch):
    """Slot files go with the test, those of its children too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def control_port(settings, own_slots):
    """Makes control ports, to which the publisher publishes; they end with the test."""
    ports = []

    def make(**options):
        ports.append(ControlPort(**options))
        settings.GRIP_PROXIES = [{"control_uri": port.url} for port in ports]
        return ports[-1]

    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_PUBLISH_INTERVAL = 0.005
    settings.GRIP_URL = None
    yield make
    for port in ports:
        port.close()
    with suppress(ImproperlyConfigured):
        get_publisher().close(timeout=0)


@pytest.fixture
def control(control_port):
    """The one proxy's control port."""
    return control_port()


@pytest.fixture
def processes(transactional_db, tmp_path, control):
    """Starts processes on the test's database."""
    processes = Processes(tmp_path, control)
    yield processes
    processes.end()


@pytest.fixture
def configure():
    """`configure(model, **options)` changes a stream until the end of the test."""
    with configurator() as configure:
        yield configure
