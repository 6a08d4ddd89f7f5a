import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections, models
from django.test import override_settings

from django_grip.contrib.realtime import (
    ModelStream,
    RealtimeModel,
    realtime,
    register,
)
from django_grip.contrib.realtime.streams import alias_of, registry
from tests.shop.models import Customer, Item, Order, OrderView, Parcel, Tag


def test_decorator_mixin_and_register_build_the_same_thing():
    assert registry.get(Order).serializers[None].__name__ == "OrderSerializer"
    assert registry.get(Parcel).fields == ("id", "code")
    assert list(registry.get(Item).serializers) == ["public", "staff"]
    assert registry.get(Tag).is_thin
    assert registry.get(Customer) is None


def test_a_proxy_model_has_the_stream_of_its_concrete_model():
    assert registry.get(OrderView) is registry.get(Order)


def test_registering_twice_names_the_ways():
    with pytest.raises(ImproperlyConfigured, match="twice"):
        realtime(Order)
    with pytest.raises(ImproperlyConfigured, match="twice"):
        register(Item)(type("Again", (ModelStream,), {}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": ["id"]}, "Unknown realtime options for Customer: field. Known are"),
        ({"fields": ["id"], "serializer_class": "x.y"}, "choose one"),
        ({"fields": "id"}, "got a str"),
        ({"fields": ["nope"]}, "names 'nope'"),
        ({"audiences": {}}, "empty"),
        ({"events": ("created",)}, r"\['created'\]"),
    ],
)
def test_wrong_options_raise_at_once(options, message):
    with pytest.raises(ImproperlyConfigured, match=message):
        realtime(**options)(Customer)
    assert registry.get(Customer) is None


def test_abstract_models_and_other_classes_are_refused():
    with pytest.raises(ImproperlyConfigured, match="abstract"):
        realtime(RealtimeModel)
    with pytest.raises(ImproperlyConfigured, match="decorates a ModelStream"):
        register(Customer)(type("NoStream", (), {}))


def test_historical_models_of_migrations_are_ignored():
    from django.apps.registry import Apps

    class Meta:
        app_label = "shop"
        apps = Apps()

    before = list(registry)
    type("Old", (RealtimeModel,), {"__module__": "__fake__", "Meta": Meta})
    assert list(registry) == before


def test_a_serializer_that_cannot_be_imported_is_told_by_check(monkeypatch):
    stream = ModelStream(Customer)
    stream.serializer_class = "shop.nowhere.Serializer"
    monkeypatch.setitem(registry._streams, Customer, stream)
    with pytest.raises(SystemCheckError, match=r"shop\.nowhere\.Serializer") as caught:
        call_command("check")
    assert "grip_realtime.E002" in str(caught.value)


def test_an_unknown_key_of_grip_realtime_suggests_the_nearest(settings):
    settings.GRIP_REALTIME = {"KEEPALIVE": 5}
    with pytest.raises(Exception, match=r"'KEEPALIVE'. Did you mean 'KEEP_ALIVE'"):
        call_command("check")


def test_the_model_is_returned_unchanged():
    assert isinstance(Order, models.base.ModelBase)
    assert Order.__name__ == "Order"


# Databases.


@pytest.mark.parametrize(
    ("channel", "alias"),
    [
        ("room", "default"),
        ("shop.tag", "default"),
        ("shop.tag.5", "default"),
        ("shop.tag~on.other", "other"),
        ("shop.tag.5~as.staff~on.other", "other"),
        ("shop.tag~tenant.7~on.other", "other"),
        ("shop.tag~tenant.7%7Eon%2Eother", "default"),
        ("shop.tag~on.nowhere", "default"),
        ("shop.tag~on.", "default"),
        ("~on.other", "other"),
        ("", "default"),
    ],
)
def test_a_channels_name_says_which_database_has_its_log(channel, alias):
    assert alias_of(channel) == alias


def test_a_channel_is_told_of_where_its_model_is_written():
    class Elsewhere:
        def db_for_write(self, model, **hints):
            return "other" if model is Order else None

    with override_settings(DATABASE_ROUTERS=[Elsewhere()]):
        assert alias_of("shop.order") == "other"
        assert alias_of("shop.order.4") == "other"
        assert alias_of("shop.tag.4") == "default"


def test_an_alias_that_channel_names_encode_is_found(monkeypatch):
    monkeypatch.setitem(connections.settings, "east.1", {})
    assert alias_of("shop.tag~on.east%2E1") == "east.1"
