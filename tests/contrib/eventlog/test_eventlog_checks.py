"""The system checks of the event log."""

from datetime import timedelta

import pytest
from django.apps import apps
from django.core import checks
from django.core.checks import Tags
from django.db import connection, connections
from django.utils import timezone

from django_grip.contrib.eventlog.checks import SEEN
from django_grip.contrib.eventlog.models import Sequence
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.realtime.streams import registry
from tests.shop.models import Tag


class ToOther:
    """Sends every write to another database."""

    def db_for_write(self, model, **hints):
        return "other"


class NoLog:
    """Forgets the tables of the event log."""

    def allow_migrate(self, db, app_label, **hints):
        return False if app_label == "grip_eventlog" else None


def found(*, deploy=False, databases=None):
    """What `manage.py check` says of the event log."""
    return {
        message.id.removeprefix("grip_eventlog."): message
        for message in checks.run_checks(
            include_deployment_checks=deploy, databases=databases
        )
        if message.id.startswith("grip_eventlog.")
    }


def asked(**options):
    return found(databases=["default"], **options)


@pytest.fixture
def rename():
    """Have a table go by another name during the test."""
    renamed = []

    def rename(table):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        renamed.append(table)

    yield rename
    for table in renamed:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


def test_the_settings_of_these_tests_pass():
    assert found() == {}


@pytest.mark.django_db(transaction=True)
def test_so_does_their_database():
    assert asked(deploy=True) == {}


def test_no_database_is_asked_unless_it_is_named(settings):
    # pytest-django would refuse any query here.
    settings.GRIP_REALTIME = {"RELAY": "daemon"}
    assert found(deploy=True) == {}
    assert Tags.database in checks.registry.registry.tags_available()


def test_e001_a_relay_that_does_not_exist(settings):
    settings.GRIP_REALTIME = {"RELAY": "deamon"}
    error = found()["E001"]
    assert error.is_serious()
    assert "is 'deamon'; expected 'inline' or 'daemon'" in error.msg


def test_e002_without_what_writes_to_the_log(monkeypatch):
    configs = dict(apps.app_configs)
    del configs["grip_realtime"]
    monkeypatch.setattr(apps, "app_configs", configs)
    assert "'django_grip.contrib.realtime'" in found()["E002"].hint


def test_w001_a_proxy_without_a_key(settings):
    settings.GRIP_URL = "http://127.0.0.1:9"
    assert "No proxy has a key" in found()["W001"].msg
    settings.GRIP_VERIFY_KEY = settings.PROXY_KEY
    assert found() == {}


def test_w001_is_silent_where_another_check_speaks(settings):
    settings.GRIP_URL = None
    assert "W001" not in found()
    settings.GRIP_PROXIES = [{"control_uri": "ftp://127.0.0.1"}]
    assert "W001" not in found()


def test_w002_sqlite_that_takes_its_lock_late(settings, monkeypatch):
    late = connections["other"].settings_dict
    settings.DATABASE_ROUTERS = [ToOther()]
    for options in ({}, {"transaction_mode": None}, {"transaction_mode": "DEFERRED"}):
        monkeypatch.setitem(late, "OPTIONS", options)
        assert "transaction_mode" in found()["W002"].hint
    for mode in ("IMMEDIATE", "exclusive"):
        monkeypatch.setitem(late, "OPTIONS", {"transaction_mode": mode})
        assert found() == {}


@pytest.mark.django_db(transaction=True)
def test_w003_a_database_without_the_tables_of_the_log(rename):
    rename("grip_eventlog_outbox")
    warning = asked()["W003"]
    assert not warning.is_serious()
    assert "every write to" in warning.msg
    assert warning.hint == "Run: manage.py migrate --database default"
    assert found() == {}


@pytest.mark.django_db(transaction=True)
def test_w003_names_the_routers_where_they_forbid_the_tables(rename, settings):
    rename("grip_eventlog_outbox")
    settings.DATABASE_ROUTERS = [NoLog()]
    assert "DATABASE_ROUTERS allow grip_eventlog" in asked()["W003"].hint


@pytest.mark.django_db(transaction=True)
def test_w003_waits_until_the_models_have_tables(rename, monkeypatch):
    stream = registry.get(Tag)
    monkeypatch.setattr(registry, "_streams", {Tag: stream})
    rename("grip_eventlog_outbox")
    assert asked().keys() == {"W003"}
    rename("shop_tag")
    assert asked() == {}


@pytest.mark.only_on("mysql")
@pytest.mark.django_db(transaction=True)
def test_e003_a_table_without_transactions():
    try:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE grip_eventlog_outbox ENGINE=MyISAM")
        error = asked()["E003"]
        assert error.is_serious()
        assert error.hint == "ALTER TABLE grip_eventlog_outbox ENGINE=InnoDB"
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE grip_eventlog_outbox ENGINE=InnoDB")
    assert asked() == {}


@pytest.mark.django_db(transaction=True)
def test_w004_a_daemon_that_does_not_run(settings, published):
    settings.GRIP_REALTIME = {"RELAY": "daemon"}
    assert asked(deploy=True).keys() == {"W004"}
    assert asked() == {}
    Relay("default").drain()
    assert asked(deploy=True) == {}
    long_ago = timezone.now() - timedelta(seconds=SEEN + 5)
    Sequence.objects.update(seen_at=long_ago)
    assert "grip_relay --database default" in asked(deploy=True)["W004"].hint
    settings.GRIP_REALTIME = {}
    assert asked(deploy=True) == {}
