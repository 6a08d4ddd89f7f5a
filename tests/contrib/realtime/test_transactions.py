"""Nothing leaves before the commit, and nothing of what was rolled back ever leaves."""

from contextlib import contextmanager, suppress
from types import ModuleType

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save
from django.http import HttpResponse
from django.test import TestCase
from django.urls import path

from django_grip.contrib.realtime import actor, publish_event
from django_grip.contrib.realtime import suppress as silence
from tests.shop.models import Invoice, Label, Shipment, Tag
from tests.shop.reading import configurator, events, told

pytestmark = pytest.mark.django_db(transaction=True)


class Abort(Exception):
    pass


@contextmanager
def aborted(**options):
    """A transaction, or a savepoint, that an exception rolls back."""
    with suppress(Abort), transaction.atomic(**options):
        yield
        raise Abort


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


@pytest.fixture
def rows():
    """Shipments 2 and 3, and label 1 on the third, that nobody was told of."""
    with silence():
        label = Label.objects.create(pk=1, word="fragile")
        Shipment.objects.create(pk=2)
        Shipment.objects.create(pk=3).labels.add(label)


def announced(op, *pks):
    """What is told of these rows, sorted."""
    return [f"{op} shop.shipment"] * len(pks) + [
        f"{op} shop.shipment.{pk}" for pk in pks
    ]


def some():
    return Shipment.objects.filter(pk__in=(2, 3))


def bulk_update():
    shipments = list(some())
    for shipment in shipments:
        shipment.status = "sent"
    Shipment.objects.bulk_update(shipments, ["status"])


WRITES = {
    "create": (lambda: Shipment.objects.create(pk=4), ["create", 4]),
    "update": (lambda: Shipment.objects.get(pk=2).save(), ["update", 2]),
    "delete": (lambda: Shipment.objects.get(pk=2).delete(), ["delete", 2]),
    "bulk_create": (
        lambda: Shipment.objects.bulk_create([Shipment(pk=4), Shipment(pk=5)]),
        ["create", 4, 5],
    ),
    "queryset update": (lambda: some().update(status="sent"), ["update", 2, 3]),
    "bulk_update": (bulk_update, ["update", 2, 3]),
    "queryset delete": (lambda: some().delete(), ["delete", 2, 3]),
    "m2m add": (lambda: Shipment.objects.get(pk=2).labels.add(1), ["update", 2]),
    "m2m remove": (lambda: Shipment.objects.get(pk=3).labels.remove(1), ["update", 3]),
}


def committed(write):
    with transaction.atomic():
        yield write()


def rolled_back(write):
    with aborted():
        yield write()


def marked_for_rollback(write):
    with transaction.atomic():
        yield write()
        transaction.set_rollback(True)


def savepoint_rolled_back(write):
    with transaction.atomic():
        with aborted():
            yield write()
        yield None


def outer_rolled_back(write):
    with aborted(), transaction.atomic():
        yield write()


def nested(write):
    with transaction.atomic(), transaction.atomic(), transaction.atomic():
        yield write()


def between_rolled_back_savepoints(write):
    with transaction.atomic():
        with aborted():
            Shipment.objects.create(pk=8)
        yield write()
        with aborted():
            Shipment.objects.create(pk=9)


def failed_after_the_commit(write):
    with suppress(Abort):
        with transaction.atomic():
            yield write()
        raise Abort


LIVES = [committed, nested, between_rolled_back_savepoints, failed_after_the_commit]
DIES = [rolled_back, marked_for_rollback, savepoint_rolled_back, outer_rolled_back]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    ("boundary", "is_told"),
    [*((one, True) for one in LIVES), *((one, False) for one in DIES)],
)
@pytest.mark.usefixtures("rows")
def test_f4_what_committed_is_told_and_nothing_else(published, boundary, is_told, name):
    write, expected = WRITES[name]
    for _ in boundary(write):
        assert published == []
    assert sorted(told(published)) == (announced(*expected) if is_told else [])


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("rows")
def test_in_autocommit_a_write_is_told_at_once(published, name):
    write, expected = WRITES[name]
    write()
    assert sorted(told(published)) == announced(*expected)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("rows")
def test_a_rolled_back_savepoint_takes_exactly_its_own(published, name):
    write, _ = WRITES[name]
    with transaction.atomic():
        Tag.objects.create(pk=1)
        with aborted():
            write()
        Tag.objects.create(pk=2)
        with aborted():
            write()
    assert [event["pk"] for event in events(published)] == [1, 1, 2, 2]


def explode(self, instance, audience):
    raise ZeroDivisionError


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.usefixtures("rows")
def test_f3_a_serializer_that_raises_fails_no_write(published, configure, name):
    configure(Shipment, get_data=explode)
    write, expected = WRITES[name]
    with transaction.atomic():
        write()
        # On PostgreSQL this fails if the transaction is broken.
        assert Shipment.objects.count() >= 0
    assert sorted(told(published)) == announced(*expected)
    assert not any("data" in event for event in events(published))


def test_a_write_that_the_database_refuses_says_nothing(published):
    Shipment.objects.create(pk=1)
    published.clear()
    for write in (
        lambda: Shipment.objects.create(pk=1),
        lambda: Shipment.objects.bulk_create([Shipment(pk=2), Shipment(pk=1)]),
        lambda: Shipment.objects.update(priority=None),
    ):
        with pytest.raises(Exception, match=r"(?i)constraint|null"):
            write()
    assert published == []
    assert Shipment.objects.count() == 1


def test_a_receiver_that_raises_in_autocommit_takes_the_write_back(published):
    def refuse(**kwargs):
        raise Abort

    post_save.connect(refuse, sender=Tag)
    try:
        with pytest.raises(Abort):
            Tag.objects.create(pk=1)
    finally:
        post_save.disconnect(refuse, sender=Tag)
    assert published == []
    assert not Tag.objects.exists()


def test_a_receiver_that_raises_before_the_write_spoils_no_transaction(published):
    def refuse(**kwargs):
        raise Abort

    pre_save.connect(refuse, sender=Tag)
    try:
        with transaction.atomic():
            with suppress(Abort):
                Tag.objects.create(pk=1)
            Label.objects.create(pk=1, word="goes on")
    finally:
        pre_save.disconnect(refuse, sender=Tag)
    assert told(published) == ["create shop.label", "create shop.label.1"]


class InATestCase(TestCase):
    """Here nothing commits: callbacks run when they are captured."""

    @classmethod
    def setUpTestData(cls):
        Shipment.objects.create(pk=1)

    @pytest.fixture(autouse=True)
    def _published(self, published):
        self.published = published

    def test_events_leave_with_the_callbacks(self):
        with self.captureOnCommitCallbacks(execute=True):
            Shipment.objects.create(pk=2)
            assert self.published == []
        assert told(self.published) == announced("create", 2)

    def test_they_leave_once_however_often_callbacks_are_captured(self):
        for pk in (2, 3):
            with self.captureOnCommitCallbacks(execute=True):
                Shipment.objects.create(pk=pk)
        assert sorted(told(self.published)) == announced("create", 2, 3)

    def test_they_stay_when_callbacks_are_not_executed(self):
        with self.captureOnCommitCallbacks() as callbacks:
            Shipment.objects.get().save()
        assert self.published == []
        for callback in callbacks:
            callback()
        assert told(self.published) == announced("update", 1)

    def test_a_rolled_back_savepoint_takes_its_own(self):
        with self.captureOnCommitCallbacks(execute=True):
            Shipment.objects.get().save()
            with aborted():
                Shipment.objects.create(pk=2)
        assert told(self.published) == announced("update", 1)

    def test_what_was_before_the_capture_does_not_leave_with_it(self):
        Shipment.objects.create(pk=2)
        with self.captureOnCommitCallbacks(execute=True):
            Shipment.objects.create(pk=3)
        assert told(self.published) == announced("create", 3)


def save(request):
    Tag.objects.create(pk=1)
    return HttpResponse()


def save_and_fail(request):
    Tag.objects.create(pk=1)
    raise Abort


@pytest.fixture
def atomic_requests(monkeypatch, settings):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    urls = ModuleType("urls")
    urls.urlpatterns = [path("save/", save), path("fail/", save_and_fail)]
    settings.ROOT_URLCONF = urls


@pytest.mark.usefixtures("atomic_requests")
def test_with_atomic_requests_a_view_that_raises_says_nothing(published, client):
    client.raise_request_exception = False
    assert client.get("/fail/").status_code == 500
    assert published == []
    assert client.get("/save/").status_code == 200
    assert told(published) == ["create shop.tag", "create shop.tag.1"]


two_databases = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@two_databases
def test_another_alias_is_named_in_its_channels(published):
    Tag.objects.using("other").create(pk=1)
    assert told(published) == ["create shop.tag~on.other", "create shop.tag.1~on.other"]


@two_databases
def test_each_alias_has_its_own_transaction(published):
    with transaction.atomic():
        Tag.objects.create(pk=1)
        Tag.objects.using("other").create(pk=2)
        assert [event["pk"] for event in events(published)] == [2, 2]
        with aborted(using="other"):
            Tag.objects.using("other").create(pk=3)
    assert [event["pk"] for event in events(published)] == [2, 2, 1, 1]


@two_databases
def test_a_channel_that_is_named_is_of_its_own_alias(published):
    with aborted(using="other"):
        publish_event("shop.tag~on.other", "never")
    with transaction.atomic(using="other"):
        publish_event("shop.tag~on.other", "later")
        publish_event("shop.tag", "now")
        assert told(published) == ["now shop.tag"]
    assert told(published) == ["now shop.tag", "later shop.tag~on.other"]


@two_databases
def test_the_same_pk_on_two_aliases_is_two_rows(published):
    with transaction.atomic(), transaction.atomic(using="other"):
        Tag.objects.create(pk=1)
        Tag.objects.using("other").create(pk=1)
        Tag.objects.get(pk=1).delete()
    assert told(published) == ["create shop.tag~on.other", "create shop.tag.1~on.other"]


def write_all(*writes):
    with transaction.atomic():
        for write in writes:
            write()


def create():
    Shipment.objects.create(pk=1, note="first")


def change(**values):
    def change():
        shipment = Shipment.objects.get(pk=1)
        for name, value in values.items():
            setattr(shipment, name, value)
        shipment.save(update_fields=list(values))

    return change


def save_all():
    Shipment.objects.get(pk=1).save()


def update(**values):
    return lambda: Shipment.objects.filter(pk=1).update(**values)


def delete():
    Shipment.objects.get(pk=1).delete()


def label():
    Shipment.objects.get(pk=1).labels.set([1])


@pytest.mark.parametrize(
    ("writes", "op", "note"),
    [
        ([create, change(note="last")], "create", "last"),
        ([create, update(note="last")], "create", "last"),
        ([create, label, save_all], "create", "first"),
        ([create, delete, create], "create", "first"),
        ([create, delete, create, change(note="last")], "create", "last"),
    ],
)
def test_what_is_done_to_a_new_row_is_one_create(published, writes, op, note):
    with silence():
        Label.objects.create(pk=1)
    write_all(*writes)
    assert told(published) == announced(op, 1)
    assert {event["data"]["note"] for event in events(published)} == {note}
    assert not any("changed" in event for event in events(published))


@pytest.mark.parametrize(
    "writes",
    [
        [create, delete],
        [create, change(note="x"), delete],
        [create, label, delete, create, delete],
    ],
)
def test_a_row_that_nobody_could_see_was_never_there(published, writes):
    with silence():
        Label.objects.create(pk=1)
    write_all(*writes)
    assert published == []


@pytest.fixture
def row():
    with silence():
        create()
        Label.objects.create(pk=1)


@pytest.mark.parametrize(
    ("writes", "changed"),
    [
        ([change(note="a"), change(note="b")], ["note"]),
        ([change(note="a"), change(status="b")], ["note", "status"]),
        ([change(note="a"), update(status="b")], ["note", "status"]),
        ([label, change(note="a")], ["labels", "note"]),
        ([update(note="a"), label, change(status="b")], ["labels", "note", "status"]),
        ([change(note="a"), save_all], None),
        ([save_all, label], None),
    ],
)
@pytest.mark.usefixtures("row")
def test_updates_are_one_that_names_the_columns_of_all(published, writes, changed):
    write_all(*writes)
    assert told(published) == announced("update", 1)
    stored = Shipment.objects.get()
    for event in events(published):
        assert event.get("changed") == changed
        assert event["data"]["note"] == stored.note
        assert event["data"]["status"] == stored.status


@pytest.mark.parametrize(
    ("writes", "op"),
    [
        ([change(note="a"), delete], "delete"),
        ([label, delete], "delete"),
        ([delete, create], "update"),
        ([delete, create, delete], "delete"),
        ([change(note="a"), delete, create, label], "update"),
    ],
)
@pytest.mark.usefixtures("row")
def test_a_row_that_goes_or_is_replaced(published, writes, op):
    write_all(*writes)
    assert told(published) == announced(op, 1)


@pytest.mark.usefixtures("row")
def test_an_update_in_a_rolled_back_savepoint_names_no_column(published):
    with transaction.atomic():
        change(note="kept")()
        with aborted():
            change(status="lost")()
    assert told(published) == announced("update", 1)
    assert events(published)[0]["changed"] == ["note"]


def test_rows_leave_in_the_order_of_their_first_change(published):
    with transaction.atomic():
        for pk in (3, 1, 2):
            Tag.objects.create(pk=pk)
        Tag.objects.get(pk=3).save()
    assert [event["pk"] for event in events(published)] == [3, 3, 1, 1, 2, 2]


def test_a_row_that_is_back_after_a_bulk_delete_is_told_last(published, configure):
    configure(Shipment, bulk_limit=1)
    with silence():
        Shipment.objects.bulk_create([Shipment(pk=1), Shipment(pk=2)])
    with transaction.atomic():
        save_all()
        Shipment.objects.all().delete()
        create()
    last = {event["channel"]: event["op"] for event in events(published)}
    assert last["shop.shipment.2"] == "delete"
    assert last["shop.shipment.1"] in ("create", "update")
    assert last["shop.shipment"] in ("create", "update")


def test_a_save_in_a_receiver_of_the_save_is_told_with_it(published):
    Invoice.objects.create(pk=1, tenant=7)
    assert told(published) == ["create shop.invoice", "create shop.invoice.1"]
    assert {event["data"]["number"] for event in events(published)} == {"7-1"}


def test_the_origin_of_one_transaction_does_not_reach_the_next(published):
    with actor("a"), transaction.atomic():
        Tag.objects.create(pk=1)
    Tag.objects.create(pk=2)
    assert [event.get("origin") for event in events(published)] == ["a", "a"] + [
        None
    ] * 2
