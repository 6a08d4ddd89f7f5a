"""Rows of the security table that the model layer answers for.

S44 (line ends, `data:` in data) is in test_events.py for the frames themselves.
"""

import json
import re
import unicodedata
from itertools import product

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from hypothesis import given as drawn
from hypothesis import strategies as st
from rest_framework import serializers

from django_grip.contrib.realtime import (
    channel_for,
    publish_changes,
    publish_event,
    suppress,
)
from django_grip.contrib.realtime.channels import NAME_MAX, channel_name
from django_grip.headers import channel_header, check_channel
from tests.shop.models import Item, Shipment, Tag, Word
from tests.shop.reading import configurator, envelope, events, text, told

on_commit = pytest.mark.django_db(transaction=True)

HOSTILE = [
    "a\r\nGrip-Hold: stream",
    "a, shop.shipment",
    "a; prev-id=0; filters=build-id",
    '"quoted"',
    "100%",
    "%2e%2E",
    "with space",
    "été",
    "e\u0301te\u0301",
    "🚚",
    "~as.staff",
    ".42",
    "42~on.other",
    "-leading",
    "../../etc/passwd",
    "*",
    "shop.*",
    "^.*$",
    "",
    "x" * 300,
    "日" * 300,
]


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


@pytest.fixture
def by_status(configure):
    configure(Shipment, scopes={"status": "status"})


def given(model, **values):
    """A row that nobody was told of."""
    with suppress():
        return model._base_manager.create(**values)


# Names of channels.


@on_commit
@pytest.mark.usefixtures("by_status")
def test_s26_hostile_scope_values_are_carried_by_the_wire(published):
    Shipment.objects.bulk_create([Shipment(status=value) for value in HOSTILE])
    names = [item.channel for item in published if "~status." in item.channel]
    assert len(set(names)) == len(HOSTILE)
    for name, value in zip(names, HOSTILE, strict=True):
        assert name == channel_for(Shipment, "status", value)
        assert check_channel(name) == name
        assert len(name.encode()) <= NAME_MAX
        assert re.fullmatch(r"[A-Za-z0-9._~%-]+", name)
        assert channel_header([(name, None, ())]) == name


@on_commit
def test_s26_hostile_pks_are_carried_by_the_wire(published):
    for value in HOSTILE:
        Word.objects.create(text=value)
    names = [item.channel for item in published[1::2]]
    assert len({*names, "shop.word"}) == len(HOSTILE) + 1
    for name, value in zip(names, HOSTILE, strict=True):
        assert name == channel_for(Word(text=value))
        assert len(name.encode()) <= NAME_MAX
        assert re.fullmatch(r"[A-Za-z0-9._~%-]+", name)


@on_commit
def test_s26_an_event_on_a_channel_that_nobody_can_hold_is_refused(published):
    for name in ("a\r\nb", "a\0", "a,b", "a;b", 'a"b', "a b", "é", ""):
        with pytest.raises(ValueError, match="channel name"):
            publish_event(name, "headline")
    assert published == []


# Few letters, and those that mean something in a name: most likely to meet.
NEAR = st.text("a.~%1", max_size=3)
TEXT = NEAR | st.text(max_size=250)
SHORT = st.text("a.~%1", min_size=1, max_size=3) | st.text(min_size=1, max_size=12)
SCOPE = st.sampled_from(["tenant", "owner", "tenant_id"])
WHERE = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"pk": TEXT}),
    st.fixed_dictionaries({"pk": st.tuples(SHORT, SHORT)}),
    st.fixed_dictionaries({"pk": st.tuples(st.integers(0, 99), SHORT)}),
    st.fixed_dictionaries({"place": st.tuples(SCOPE, TEXT)}),
)
NAMED = st.tuples(WHERE, st.none() | SHORT, st.none() | SHORT)


def name(named):
    where, audience, using = named
    return channel_name("shop.shipment", **where, audience=audience, using=using)


def meant(named):
    """What a name stands for; a composite pk and its JSON text are one."""
    where, audience, using = named
    pk = where.get("pk")
    if isinstance(pk, tuple):
        pk = json.dumps(list(pk))
    return pk, where.get("place"), audience, using


@drawn(NAMED, NAMED)
def test_s27_pks_scope_values_audiences_and_aliases_never_meet(one, other):
    assert (name(one) == name(other)) == (meant(one) == meant(other))


def test_s27_values_made_of_separators_never_meet_either():
    parts = ("1", "a", "~as.", "~on.", "~tenant.", ".")
    values = ["".join(some) for n in range(4) for some in product(parts, repeat=n)]
    wheres = [
        {},
        *({"pk": value} for value in values),
        *({"place": (scope, value)} for scope in ("tenant", "a") for value in values),
    ]
    suffixes = (None, "1", "a", "a~on.1", "1.a")
    names = [name(named) for named in product(wheres, suffixes, suffixes)]
    assert len(set(names)) == len(names) == (3 * len(values) + 1) * 25


def test_s27_a_value_that_is_the_hash_of_another_does_not_meet_it():
    hashed = channel_name("shop.shipment", place=("tenant", "x" * 300))
    looks_like_it = hashed.partition("~tenant.")[2]
    assert channel_name("shop.shipment", place=("tenant", looks_like_it)) != hashed


@drawn(NAMED)
def test_s26_whatever_is_named_is_carried_by_the_wire(named):
    assert check_channel(name(named)) == name(named)
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", name(named))


@drawn(TEXT, st.lists(st.sampled_from("._~-% ab"), max_size=4).map("".join))
def test_s27_a_value_does_not_meet_one_that_only_looks_like_it(value, tail):
    def place(value):
        return channel_name("shop.shipment", place=("tenant", value))

    for other in (value + tail, value.upper(), unicodedata.normalize("NFD", value)):
        assert (place(value) == place(other)) == (value == other)


def test_s27_parts_joined_by_a_separator_do_not_collide():
    names = {
        channel_name("shop.shipment", place=("a_b", "c")),
        channel_name("shop.shipment", place=("a", "b_c")),
        channel_name("shop.shipment", place=("a", "b.c")),
        channel_name("shop.shipment", "a.b_c"),
        channel_name("shop.shipment", ("a", "b_c")),
        channel_name("shop.shipment", ("a_b", "c")),
    }
    assert len(names) == 6


@on_commit
@pytest.mark.usefixtures("by_status")
def test_s31_wildcards_are_values_like_any_other(published):
    Shipment.objects.create(pk=1, status="*")
    Shipment.objects.create(pk=2, status="open")
    assert "*" not in "".join(item.channel for item in published)
    heard = {
        value: [
            event["pk"]
            for event in events(published)
            if event["channel"] == channel_for(Shipment, "status", value)
        ]
        for value in ("*", ".*", "open")
    }
    assert heard == {"*": [1], ".*": [], "open": [2]}


# What leaves.


class NosySerializer(serializers.ModelSerializer):
    """Says what its context has, and what it may ask of the request."""

    context_given = serializers.SerializerMethodField()

    class Meta:
        model = Shipment
        fields = ("id", "context_given")

    def get_context_given(self, instance):
        return repr(self.context)


class PerRequestSerializer(NosySerializer):
    def get_context_given(self, instance):
        return self.context["request"].user.username


@on_commit
def test_s40_a_serializer_gets_no_request(published, configure):
    configure(Shipment, fields=None, serializer_class=NosySerializer)
    Shipment.objects.create(pk=1)
    (data,) = {json.dumps(event["data"]) for event in events(published)}
    assert json.loads(data) == {"id": 1, "context_given": "{'request': None}"}


@on_commit
def test_s40_what_depends_on_the_request_goes_to_nobody(published, configure, caplog):
    configure(Shipment, fields=None, serializer_class=PerRequestSerializer)
    Shipment.objects.create(pk=1)
    assert told(published) == ["create shop.shipment", "create shop.shipment.1"]
    assert not any("data" in event for event in events(published))
    assert "goes out without data" in caplog.text


class WriteOnlySerializer(serializers.ModelSerializer):
    class Meta:
        model = Shipment
        fields = ("id", "status", "note")
        extra_kwargs = {"note": {"write_only": True}}


class ExcludingSerializer(serializers.ModelSerializer):
    class Meta:
        model = Shipment
        exclude = ("note", "labels", "depot")


@pytest.mark.parametrize(
    "options",
    [
        {"fields": ["id", "status"]},
        {"fields": None},
        {"fields": None, "serializer_class": WriteOnlySerializer},
        {"fields": None, "serializer_class": ExcludingSerializer},
    ],
)
@on_commit
def test_s41_only_declared_fields_are_sent(published, configure, options):
    configure(Shipment, **options)
    shipment = Shipment.objects.create(pk=1, note="correct horse")
    shipment.note = "battery staple"
    shipment.save(update_fields=["note"])
    Shipment.objects.update(note="correct horse")
    shipment.delete()
    assert len(published) == 8
    assert "correct horse" not in text(published)
    assert "battery staple" not in text(published)


@on_commit
def test_s42_each_audience_gets_the_bytes_of_its_serializer(published):
    Item.objects.create(pk=1, name="vase", reserve=98765)
    payloads = {item.channel: payload(item) for item in published}
    public, staff = '{"id":1,"name":"vase"}', '{"id":1,"name":"vase","reserve":98765}'
    assert payloads == {
        "shop.item~as.public": public,
        "shop.item.1~as.public": public,
        "shop.item~as.staff": staff,
        "shop.item.1~as.staff": staff,
    }
    heard = [item for item in published if item.channel.endswith("~as.public")]
    assert "98765" not in text(heard)


def payload(item):
    """The bytes of `data` in the envelope of an item, which stand last."""
    content = item.formats["http-stream"]["content"]
    return content.partition(',"data":')[2].removesuffix("}\n\n")


@on_commit
def test_s43_a_delete_says_the_pk_and_no_value(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"}, bulk_limit=1)
    with suppress():
        for pk in (1, 2, 3):
            Shipment.objects.create(pk=pk, tenant=7, note="last words", status="gone")
    Shipment.objects.get(pk=1).delete()
    Shipment.objects.all().delete()
    for event in events(published):
        assert set(event) in (
            {"id", "channel", "op", "model", "pk", "ts"},
            {"id", "channel", "op", "model", "ts", "action", "count", "pks"},
        )
    assert "last words" not in text(published)
    assert len(published) == 3 + 4


@on_commit
def test_s43_a_delete_that_is_announced_while_the_rows_are_there_says_no_value(
    published, configure
):
    configure(Shipment, fields=("id", "note"))
    with suppress():
        Shipment.objects.create(pk=1, note="last words")
    assert publish_changes(Shipment.objects.all(), "delete") == 1
    assert [event["op"] for event in events(published)] == ["delete", "delete"]
    assert "last words" not in text(published)


LINES = "a\r\nb\rc\nd\u2028e\u2029f\x85g\n\ndata: {}\nid: 9\nevent: delete\n:%I %(x)s"


@pytest.mark.parametrize("note", [LINES, "\\n\\", '"', "\ufeff", "\U0001f69a"])
@on_commit
def test_s44_a_client_gets_equal_values_in_one_line(published, note):
    Shipment.objects.create(pk=1, note=note)
    for item in published:
        content = item.formats["http-stream"]["content"]
        assert re.split(r"\r\n|\r|\n", content)[2:] == ["", ""]
        assert envelope(item)["data"]["note"] == note


@on_commit
def test_s44_a_key_with_line_ends_does_not_split_the_event(published):
    Word.objects.create(text="a\n\ndata: {}\n\n")
    for item in published:
        assert item.formats["http-stream"]["content"].count("\n") == 3
        assert envelope(item)["pk"] == "a\n\ndata: {}\n\n"


@pytest.mark.parametrize(
    "note", ["<script>alert(1)</script>", "</script><!--", "&lt;b&gt;", "{{ x }}"]
)
@on_commit
def test_s45_html_is_data(published, note):
    Shipment.objects.create(pk=1, note=note)
    group = Group.objects.create(pk=1, name=note)
    assert events(published)[0]["data"]["note"] == note
    assert events(published)[-1]["data"]["name"] == group.name


@on_commit
def test_s49_ten_thousand_saves_all_leave_in_order_and_once(published):
    with transaction.atomic():
        for pk in range(1, 10_001):
            Tag(pk=pk).save(force_insert=True)
        assert published == []
    assert [item.channel for item in published[::2]] == ["shop.tag"] * 10_000
    assert [item.channel for item in published[1::2]] == [
        f"shop.tag.{pk}" for pk in range(1, 10_001)
    ]
    assert len({item.id for item in published}) == 10_000


@on_commit
def test_s49_many_saves_taken_back_leave_nothing(published):
    tag = given(Tag, pk=1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        for _ in range(1_000):
            tag.save(update_fields=["name"])
        raise ZeroDivisionError
    tag.save()
    assert told(published) == ["update shop.tag", "update shop.tag.1"]


@on_commit
def test_s49_many_saves_of_one_row_are_one_event(published):
    tag = given(Tag, pk=1)
    with transaction.atomic():
        for _ in range(1_000):
            tag.save(update_fields=["name"])
    assert told(published) == ["update shop.tag", "update shop.tag.1"]
