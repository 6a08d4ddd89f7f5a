"""Accounts: what happens to users ends their streams when it is committed."""

import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.db.models import F
from django.test.utils import override_settings
from django.utils import timezone

from django_grip.contrib.realtime import conf
from django_grip.contrib.rest_framework import accounts
from tests.contrib.eventlog.history_fixtures import Reads
from tests.servers import ROOT, environment

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("users_site")]


@pytest.fixture
def closed(published, django_capture_on_commit_callbacks):
    """Yields `closed(do, *args)`: the users whose streams end, sorted."""

    def closed(do, *args, **kwargs):
        with django_capture_on_commit_callbacks(execute=True):
            do(*args, **kwargs)
        # Groups have a stream of their own.
        items = [item for item in published if item.channel.startswith("~")]
        published.clear()
        for item in items:
            assert item.formats["http-stream"] == {"action": "close"}
            assert item.formats["ws-message"]["action"] == "close"
            assert item.formats["http-response"]
            assert item.id is item.prev_id is None
        return [item.channel for item in items]

    return closed


@pytest.fixture
def people():
    """Ann and Bob are readers, Cid is not."""
    readers = Group.objects.create(name="readers")
    names = [User.objects.create_user(name) for name in ("ann", "bob", "cid")]
    readers.user_set.set(names[:2])
    return readers, *names


def of(*users):
    return [f"~user.{user.pk}" for user in users]


def changed(user, **values):
    for name, value in values.items():
        setattr(user, name, value)
    user.save()


def test_s32_a_logout_ends_the_streams_of_the_user(browser, ann, closed):
    assert closed(browser.post, "/logout/") == of(ann)
    # Nobody is logged in any more.
    assert closed(browser.post, "/logout/") == []


@pytest.mark.parametrize(
    "values",
    [
        {"is_active": False},
        {"password": "!"},
        {"is_superuser": True},
        {"is_staff": True},
        {"is_active": False, "password": "!", "is_staff": True},
    ],
)
def test_s32_a_change_of_the_account_ends_them(ann, closed, values):
    assert closed(changed, ann, **values) == of(ann)
    assert closed(changed, User.objects.get(), **values) == []


def test_s32_a_new_password_ends_them(ann, closed):
    ann.set_password("another")
    assert closed(ann.save, update_fields=["password"]) == of(ann)


def test_s32_a_deleted_user_has_no_streams(ann, closed):
    pk = ann.pk
    assert closed(ann.delete) == [f"~user.{pk}"]
    ann = User.objects.create_user("ann")
    assert closed(User.objects.all().delete) == of(ann)


def test_who_becomes_active_has_none_to_end(ann, closed):
    User.objects.update(is_active=False)
    assert closed(changed, User.objects.get(), is_active=True) == []


def test_a_stale_instance_is_compared_with_what_is_stored(ann, closed):
    """Loaded when she was not active, and written back so after she was again."""
    User.objects.update(is_active=False)
    stale = User.objects.get()
    User.objects.update(is_active=True)
    assert closed(changed, stale, email="x@example.org") == of(ann)


def test_what_the_database_computes_counts_as_changed(ann, closed):
    User.objects.filter(pk=ann.pk).update(is_superuser=True)
    ann.refresh_from_db()
    assert closed(changed, ann, is_staff=F("is_superuser")) == of(ann)


def test_other_saves_publish_nothing(ann, closed):
    assert closed(changed, ann, email="x@example.org") == []
    assert closed(User.objects.create_user, "bob", is_active=False) == []


def test_saves_that_name_other_columns_ask_nothing(ann, closed):
    ann.last_login = timezone.now()
    with Reads() as reads:
        ann.save(update_fields=["last_login"])
    assert len(reads) == 1
    with Reads() as reads:
        ann.save()
    # The old row's columns, and the UPDATE.
    assert len(reads) == 2
    assert "password" in reads.statements[0][0]
    assert "email" not in reads.statements[0][0]
    with Reads() as reads:
        User.objects.create(username="bob")
    assert len(reads) == 1


def test_what_is_rolled_back_ends_nothing(ann, closed):
    def fail():
        with transaction.atomic():
            changed(ann, is_active=False)
            ann.groups.create(name="a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        closed(fail)
    assert closed(lambda: None) == []


# Groups and permissions.


def test_s32_s34_groups_of_a_user(people, closed):
    readers, ann, bob, cid = people
    assert closed(cid.groups.add, readers) == of(cid)
    assert closed(cid.groups.add, readers) == []
    assert closed(ann.groups.remove, readers) == of(ann)
    assert closed(bob.groups.clear) == of(bob)
    assert closed(bob.groups.set, [readers]) == of(bob)


def test_s32_s34_users_of_a_group(people, closed):
    readers, ann, bob, cid = people
    assert closed(readers.user_set.add, cid) == of(cid)
    assert closed(readers.user_set.remove, ann) == of(ann)
    assert sorted(closed(readers.user_set.clear)) == of(bob, cid)
    assert closed(readers.user_set.clear) == []


def test_s32_s34_permissions_of_a_group(people, closed):
    readers, ann, bob, _ = people
    permission = Permission.objects.get(codename="view_tag")
    assert sorted(closed(readers.permissions.add, permission)) == of(ann, bob)
    assert closed(readers.permissions.add, permission) == []
    assert sorted(closed(readers.permissions.remove, permission)) == of(ann, bob)
    assert sorted(closed(permission.group_set.add, readers)) == of(ann, bob)
    assert sorted(closed(permission.group_set.clear)) == of(ann, bob)
    readers.permissions.add(permission)
    assert sorted(closed(readers.permissions.clear)) == of(ann, bob)


def test_s32_s34_permissions_of_a_user(people, closed):
    _, ann, bob, _ = people
    permission = Permission.objects.get(codename="view_tag")
    assert closed(ann.user_permissions.add, permission) == of(ann)
    assert closed(ann.user_permissions.remove, permission) == of(ann)
    assert closed(permission.user_set.add, bob) == of(bob)
    assert closed(permission.user_set.clear) == of(bob)
    bob.user_permissions.add(permission)
    assert closed(bob.user_permissions.clear) == of(bob)


def test_s32_s34_a_group_that_is_deleted(people, closed):
    readers, ann, bob, _ = people
    assert sorted(closed(readers.delete)) == of(ann, bob)


def test_more_users_than_that_are_left_to_their_next_link(
    people, closed, monkeypatch, caplog
):
    monkeypatch.setattr(accounts, "USERS_MAX", 1)
    readers, ann, bob, _ = people
    [channel] = closed(readers.delete)
    assert channel in of(ann, bob)
    assert "more than 1 users" in caplog.text


# Switched off.


def everything(people):
    readers, ann, bob, _ = people
    permission = Permission.objects.get(codename="view_tag")
    return {
        "password": [lambda: changed(ann, password="!")],
        "inactive": [lambda: changed(ann, is_active=False)],
        "permissions": [
            lambda: changed(ann, is_superuser=True),
            lambda: ann.user_permissions.add(permission),
            lambda: readers.permissions.add(permission),
        ],
        "groups": [lambda: bob.groups.clear(), lambda: readers.delete()],
        "deleted": [lambda: ann.delete()],
    }


CAUSES = conf._DEFAULTS["REVOKE_ON"]


@pytest.mark.parametrize("cause", [name for name in CAUSES if name != "logout"])
def test_each_cause_can_be_switched_off(people, closed, cause):
    others = tuple(name for name in CAUSES if name != cause)
    for name, acts in everything(people).items():
        for act in acts:
            with override_settings(GRIP_REALTIME={"REVOKE_ON": others}):
                told = closed(act)
            assert bool(told) == (name != cause), name


def test_logout_can_be_switched_off(browser, closed, settings):
    settings.GRIP_REALTIME = {"REVOKE_ON": CAUSES[1:]}
    assert closed(browser.post, "/logout/") == []


def test_a_site_that_wants_none_of_it_pays_nothing(people, closed, settings):
    settings.GRIP_REALTIME = {"REVOKE_ON": ()}
    for acts in everything(people).values():
        for act in acts:
            assert closed(act) == []
    ann = get_user_model().objects.get(username="bob")
    with Reads() as reads:
        ann.save()
    assert len(reads) == 1


WITHOUT_USERS = """
import sys, types, django
from django.conf import settings
settings.configure(
    SECRET_KEY="insecure",
    ROOT_URLCONF="urls",
    ALLOWED_HOSTS=["testserver"],
    INSTALLED_APPS=[
        "rest_framework",
        "django_grip",
        "django_grip.contrib.realtime",
        "django_grip.contrib.rest_framework",
    ],
    MIDDLEWARE=["django_grip.GripMiddleware"],
    GRIP_URL="http://127.0.0.1:9?key=a-key-of-the-tests-of-32-bytes-or-more",
    REST_FRAMEWORK={
        "UNAUTHENTICATED_USER": None,
        "DEFAULT_AUTHENTICATION_CLASSES": [],
    },
)
django.setup()
from django.core.management import call_command
from django.db import models
from rest_framework import routers, viewsets
from django_grip.contrib.realtime import realtime
from django_grip.contrib.rest_framework import StreamModelMixin
from django_grip.test import GripClient

@realtime
class Thing(models.Model):
    id = models.BigAutoField(primary_key=True)
    class Meta:
        app_label = "grip_realtime"

class Things(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = Thing.objects.all()

class Private(Things):
    stream_link = "private"

router = routers.SimpleRouter()
router.register("things", Things, basename="things")
router.register("private", Private, basename="private")
urls = sys.modules["urls"] = types.ModuleType("urls")
urls.urlpatterns = router.urls
call_command("check", fail_level="WARNING")
client = GripClient()
assert client.get("/things/stream/")["Grip-Channel"] == "grip_realtime.thing"
ticket = client.post("/things/stream/ticket/").json()["ticket"]
assert client.get("/things/stream/", {"ticket": ticket}).status_code == 200
assert client.get("/private/stream/").status_code == 403
"""


def test_a_project_without_users_has_streams_and_no_private_ones():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_USERS],
        env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
