"""From the outbox to the log: what waits gets its place."""

import pytest

from django_grip.contrib.eventlog import sequences
from django_grip.contrib.eventlog.models import Head, LoggedEvent, Outbox
from tests.shop.models import Tag

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_change_is_written_with_its_row_and_sequenced(log):
    tag = Tag.objects.create(name="a")
    assert Outbox.objects.count() == 1
    logged = sequences.sequence("default")
    assert [(row.seq, row.prev, row.channel) for row in logged] == [
        (1, 0, "shop.tag"),
        (2, 0, f"shop.tag.{tag.pk}"),
    ]
    assert not Outbox.objects.exists()
    tag.save()
    sequences.sequence("default")
    assert list(LoggedEvent.objects.values_list("seq", "prev", "op"))[2:] == [
        (3, 1, "update"),
        (4, 2, "update"),
    ]
    assert dict(Head.objects.values_list("channel", "seq")) == {
        "shop.tag": 3,
        f"shop.tag.{tag.pk}": 4,
    }
