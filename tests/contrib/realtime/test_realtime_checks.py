"""The system checks of the realtime layer, apart from those of settings and paths."""

import django
import pytest
from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Group, User
from django.db import models
from django.test.utils import isolate_apps
from rest_framework import serializers

from django_grip.contrib.realtime import RealtimeManager, RealtimeQuerySet, checks
from django_grip.contrib.realtime.streams import ModelStream, registry
from tests.shop.models import Customer, Line, Order, Shipment, Tag


@pytest.fixture
def watch(monkeypatch):
    """Register streams for one test, and forget all others."""
    monkeypatch.setattr(registry, "_streams", {})

    def watch(model, **options):
        registry._streams[model] = type("S", (ModelStream,), options)(model)

    return watch


@pytest.fixture
def model():
    """Make models that exist for one test only."""
    with isolate_apps("tests.shop"):

        def model(name, bases=(models.Model,), **attributes):
            meta = type("Meta", (), {"app_label": "shop"})
            body = {"__module__": __name__, "Meta": meta, **attributes}
            return type(name, bases, body)

        yield model


def found(check):
    return [message.id.removeprefix("grip_realtime.") for message in check()]


CHECKS = (
    checks.check_touch,
    checks.check_managers,
    checks.check_foreign_keys,
    checks.check_secrets,
)


def test_the_models_of_these_tests_pass():
    assert [message for check in CHECKS for message in check()] == []


def test_e003_touching_what_is_not_registered(watch):
    watch(Order, touch=("customer",))
    (error,) = checks.check_touch()
    assert error.id == "grip_realtime.E003"
    assert error.msg == (
        "The stream of shop.order touches 'customer', but shop.Customer is not "
        "registered for realtime: nothing is told of it."
    )
    assert "Register shop.Customer" in error.hint
    watch(Customer)
    assert found(checks.check_touch) == []


def test_w001_bulk_writes_past_us_where_rows_may_move(watch):
    watch(Order, scopes={"status": "status"})
    (warning,) = checks.check_managers()
    assert warning.id == "grip_realtime.W001"
    assert "shop.Order has the scope status, but update()" in warning.msg
    assert "`objects` are not seen" in warning.msg
    assert "objects = RealtimeManager()" in warning.hint


def test_w001_where_rows_may_leave_get_queryset(watch):
    watch(Order, get_queryset=lambda self: Order.objects.filter(status="new"))
    (warning,) = checks.check_managers()
    assert "a get_queryset() that rows may leave" in warning.msg


def test_w001_is_silent_where_rows_stay(watch):
    watch(Order, fields=("id", "status"), watch=("status",))
    watch(Tag)
    assert found(checks.check_managers) == []


def test_w001_is_silent_with_a_manager_that_tells(watch, model):
    watch(Shipment, scopes={"tenant": "tenant"})

    class OwnQuerySet(RealtimeQuerySet):
        pass

    class OwnManager(RealtimeManager.from_queryset(OwnQuerySet)):
        pass

    tenant = models.IntegerField()
    watch(
        model("Own", tenant=tenant, objects=OwnManager()), scopes={"tenant": "tenant"}
    )
    assert found(checks.check_managers) == []
    twice = {"objects": models.Manager(), "live": RealtimeManager()}
    watch(
        model("Default", tenant=models.IntegerField(), **twice),
        scopes={"tenant": "tenant"},
    )
    assert found(checks.check_managers) == ["W001"]


def test_w001_leaves_installed_packages_alone(watch, monkeypatch):
    watch(Group, scopes={"name": "name"})
    assert found(checks.check_managers) == []
    monkeypatch.setattr(apps.get_app_config("auth"), "path", "/srv/project/auth")
    assert found(checks.check_managers) == ["W001"]


def on_delete_names():
    names = [
        (models.SET_NULL, "SET_NULL"),
        (models.SET_DEFAULT, "SET_DEFAULT"),
        (models.SET(1), "SET()"),
        (models.SET(lambda: 1), "SET()"),
    ]
    for name in ("DB_SET_NULL", "DB_SET_DEFAULT"):
        if hasattr(models, name):
            names.append((getattr(models, name), name))
    return names


@pytest.mark.parametrize(("on_delete", "name"), on_delete_names())
@pytest.mark.parametrize(
    "options",
    [
        {"fields": ("id", "customer")},
        {"scopes": {"customer": "customer_id"}},
        {"scopes": {"name": "customer__name"}},
        {"watch": ("customer",)},
        {"touch": ("customer",)},
    ],
)
def test_w002_a_deleted_row_sets_others_unseen(watch, model, on_delete, name, options):
    customer = models.ForeignKey(Customer, on_delete, null=True, default=None)
    watch(model("Child", customer=customer), **options)
    (warning,) = checks.check_foreign_keys()
    assert warning.id == "grip_realtime.W002"
    assert warning.msg == (
        "When a row of shop.Customer is deleted, customer of shop.Child is set past "
        f"the signals ({name}): these updates are not seen."
    )
    assert "update(customer=…)" in warning.hint


def test_w002_asks_serializers_what_they_name(watch, model):
    child = model(
        "Child", customer=models.ForeignKey(Customer, models.SET_NULL, null=True)
    )

    def serializer(**meta):
        inner = type("Meta", (), {"model": child, **meta})
        return type("ChildSerializer", (serializers.ModelSerializer,), {"Meta": inner})

    watch(child, serializer_class=serializer(fields=("id", "customer")))
    assert found(checks.check_foreign_keys) == ["W002"]
    watch(child, serializer_class=serializer(fields="__all__"))
    assert found(checks.check_foreign_keys) == ["W002"]
    watch(child, serializer_class=serializer(fields=("id",)))
    assert found(checks.check_foreign_keys) == []


def test_w002_is_silent_for_what_the_stream_does_not_name(watch, model):
    keys = {
        "customer": models.ForeignKey(Customer, models.SET_NULL, null=True),
        "order": models.ForeignKey(Order, models.CASCADE),
    }
    watch(model("Child", **keys), fields=("id", "order"), touch=("order",))
    assert found(checks.check_foreign_keys) == []


if django.VERSION >= (6, 1):  # With an older one there is nothing to test.

    def test_w003_the_database_deletes_unseen(watch, model):
        watch(model("Child", customer=models.ForeignKey(Customer, models.DB_CASCADE)))
        (warning,) = checks.check_foreign_keys()
        assert warning.id == "grip_realtime.W003"
        assert (
            "deletes those of shop.Child by itself (customer: DB_CASCADE)"
            in warning.msg
        )
        assert "publish_changes(queryset, 'delete')" in warning.hint


def test_s41_w004_fields_that_look_like_secrets(watch, model):
    names = (
        "password",
        "api_key",
        "reset_token",
        "secretary",
        "tokens_left",
        "keyword",
    )
    child = model("Child", **{name: models.TextField() for name in names})
    watch(child, fields=("id", *names))
    (warning,) = checks.check_secrets()
    assert warning.id == "grip_realtime.W004"
    assert "shop.Child sends password, api_key, reset_token to" in warning.msg


def user_serializer(model, **meta):
    inner = type("Meta", (), {"model": model, **meta})
    return type("UserSerializer", (serializers.ModelSerializer,), {"Meta": inner})


@pytest.mark.parametrize(
    "meta", [{"fields": "__all__"}, {"exclude": ("email",)}], ids=str
)
def test_s41_w005_all_columns_of_a_user(watch, model, meta):
    watch(User, audiences={"staff": user_serializer(User, **meta)})
    (warning,) = checks.check_secrets()
    assert warning.id == "grip_realtime.W005"
    assert "UserSerializer sends every column of auth.User" in warning.msg
    assert "fields = ['id', 'username']" in warning.hint
    robot = model("Robot", (AbstractBaseUser,))
    watch(User, serializer_class=user_serializer(robot, **meta))
    assert found(checks.check_secrets) == ["W005"]


@pytest.mark.parametrize(
    "meta",
    [
        {"fields": ("id", "username")},
        {"exclude": ("password",)},
        {"fields": ("id", "groups"), "depth": 1},
    ],
    ids=str,
)
def test_s41_w005_is_silent_for_named_columns(watch, meta):
    watch(User, serializer_class=user_serializer(User, **meta))
    assert found(checks.check_secrets) == []


def test_s41_w005_depth_shows_all_columns_of_the_user_behind_a_key(watch, model):
    child = model("Child", owner=models.ForeignKey(User, models.CASCADE))
    for meta, ids in (
        ({"fields": ("id", "owner"), "depth": 1}, ["W005"]),
        ({"exclude": ("id",), "depth": 1}, ["W005"]),
        ({"fields": ("id",), "depth": 1}, []),
        ({"exclude": ("owner",), "depth": 1}, []),
        ({"fields": ("id", "owner")}, []),
    ):
        watch(child, serializer_class=user_serializer(child, **meta))
        assert found(checks.check_secrets) == ids, meta


def test_a_path_that_cannot_be_imported_breaks_no_other_check(watch):
    watch(Line, serializer_class="shop.nowhere.Serializer")
    assert [id for check in CHECKS for id in found(check)] == []


def test_every_check_is_run_by_manage_py_check(watch):
    from django.core.checks import run_checks

    watch(Order, touch=("customer",), scopes={"secret": "secret"})
    watch(User, fields=("password",))
    ids = {message.id for message in run_checks()}
    assert {f"grip_realtime.{id}" for id in ("E003", "W001", "W004")} <= ids
