"""The control ports of a test, the publisher that uses them, and what it reports."""

import sys
import tempfile
from contextlib import suppress
from importlib import import_module

import pytest
from control_port import ControlPort
from django.core.exceptions import ImproperlyConfigured
from sending import Reports

from django_grip.publishers import get_publisher
from django_grip.signals import publish_failed, published


@pytest.fixture(autouse=True)
def own_slots(tmp_path, monkeypatch):
    """Slot files go with the test, those of its children too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def control_port(settings):
    """Makes control ports. They end with the test, and then the publisher at once."""
    ports = []

    def make(**options):
        ports.append(ControlPort(**options))
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
def control(control_port, settings):
    """The one control port of the configuration."""
    port = control_port()
    settings.GRIP_URL = port.url
    return port


@pytest.fixture
def control_down(control_port, settings):
    """A control port that refuses connections until its `up()`."""
    port = control_port(is_up=False)
    settings.GRIP_URL = port.url
    return port


@pytest.fixture
def reports():
    reports = Reports()
    published.connect(reports.on_published)
    publish_failed.connect(reports.on_failed)
    yield reports
    published.disconnect(reports.on_published)
    publish_failed.disconnect(reports.on_failed)


@pytest.fixture
def tuned(monkeypatch):
    """Sets constants of the engine, `tuned(TIMEOUT=0.5)`, wherever they are used."""

    import_module("django_grip.publishers.http")

    def tune(**constants):
        for name, value in constants.items():
            users = [
                module
                for path, module in list(sys.modules.items())
                if path.startswith("django_grip.publishers") and hasattr(module, name)
            ]
            assert users, f"No module of the publishers has {name}."
            for module in users:
                monkeypatch.setattr(module, name, value)

    return tune
