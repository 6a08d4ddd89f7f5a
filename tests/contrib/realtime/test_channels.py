import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.realtime.channels import NAME_MAX, channel_name
from django_grip.headers import check_channel

VALUES = st.text(min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("pk", "options", "name"),
    [
        (None, {}, "shop.order"),
        (42, {}, "shop.order.42"),
        (None, {"audience": "staff"}, "shop.order~as.staff"),
        (42, {"audience": "staff", "using": "r2"}, "shop.order.42~as.staff~on.r2"),
        (uuid.UUID(int=5), {}, "shop.order.00000000-0000-0000-0000-000000000005"),
        ((1, "a"), {}, "shop.order.%5B1%2C%20%22a%22%5D"),
        ("a.b~c", {}, "shop.order.a%2Eb%7Ec"),
    ],
)
def test_names_are_those_promised(pk, options, name):
    assert channel_name("shop.order", pk, **options) == name


@given(VALUES, VALUES)
def test_s27_two_pks_never_meet_in_one_name(one, other):
    same = channel_name("a.b", one) == channel_name("a.b", other)
    assert same == (one == other)


@given(VALUES, st.one_of(st.none(), VALUES.filter(lambda v: len(v) < 20)), VALUES)
def test_s26_names_are_carried_by_the_wire(pk, audience, using):
    name = channel_name("shop.order", pk, audience=audience, using=using[:10])
    assert check_channel(name) == name
    assert re.fullmatch(r"[A-Za-z0-9._~%-]+", name)


@given(st.text(min_size=150, max_size=20_000))
def test_s26_long_values_are_hashed(pk):
    assert len(channel_name("shop.order", pk)) <= NAME_MAX


def test_s27_suffixes_do_not_meet_values():
    names = {
        channel_name("a.b", "1", audience="x"),
        channel_name("a.b", "1~as.x"),
        channel_name("a.b", "1", using="x"),
        channel_name("a.b", "1~on.x"),
        channel_name("a.b", "1"),
        channel_name("a.b"),
    }
    assert len(names) == 6
