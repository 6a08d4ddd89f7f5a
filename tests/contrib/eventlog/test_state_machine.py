"""The pure rules of the log against everything that may happen, in any order.

The tables, the proxy and the clients are models in memory; sequencing, coalescing,
records and positions are those of the log. Checked are the invariants I1 to I6:

I1  what was committed is received, or a reset is
I2  what was received was committed
I3  a client applies events of growing seqs
I4  a row's versions never turn around
I5  seqs have no holes, and prev is the channel's event before
I6  in the end every client shows what the database holds
"""

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_grip.contrib.eventlog import history, records, sequences
from django_grip.contrib.eventlog.models import Head, LoggedEvent, Sequence
from django_grip.contrib.eventlog.positions import Position, parse
from django_grip.contrib.eventlog.sequencing import Waiting, departing, sequenced
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Change,
    Notice,
    State,
    Topic,
    coalesced,
)
from django_grip.contrib.realtime.tellings import events
from tests.contrib.eventlog.history_fixtures import published_until, reached

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = Topic("shop.tag", None, (None,), ("create", "update", "delete"))
COLLECTION = "shop.tag"
WINDOW = 4
WINDOW_MAX = 64
PAGE = 3
OVERFLOW = 8


# The model of the tables, and of history.read().


@dataclass(frozen=True)
class Row:
    """A row of the log."""

    seq: int
    channel: str
    prev: int
    op: str
    text: str


@dataclass
class Answer:
    """A page: durable.Page with numbers."""

    epoch: str
    position: int
    rows: list = field(default_factory=list)
    reset: str | None = None
    has_more: bool = False


@dataclass
class Tables:
    """What the database holds, as far as it is committed."""

    rows: dict = field(default_factory=dict)
    outbox: dict = field(default_factory=dict)
    log: dict = field(default_factory=dict)
    ledger: dict = field(default_factory=dict)
    heads: dict = field(default_factory=dict)
    epoch: str = "e0"
    last_seq: int = 0
    floor: int = 0
    published: int = 0

    def on(self, channel):
        """The events of a channel that are in the log."""
        log = self.log.items()
        return [row for _, row in sorted(log) if row.channel == channel]

    def head(self, channel, until):
        """See history._head()."""
        head = self.heads.get(channel, 0)
        if head <= until:
            return head
        log = self.on(channel)
        if before := [row.seq for row in log if row.seq <= until]:
            return before[-1]
        return log[0].prev if log else 0

    @property
    def watermark(self):
        """See history._published()."""
        return max(min(self.published, self.last_seq), self.floor)

    def read(self, channel, epoch, since, *, is_first=True):
        """See history.read()."""
        if since is None:
            return Answer(self.epoch, self.head(channel, self.watermark))
        if epoch != self.epoch:
            return self.reset(channel, "epoch")
        if since > self.last_seq:
            return self.reset(channel, "future")
        until = max(self.watermark, since)
        after = max(since, self.floor)
        missed = [row for row in self.on(channel) if after < row.seq <= until]
        if not missed:
            head = self.head(channel, until)
            if head > since:
                return self.reset(channel, "expired")
            return Answer(self.epoch, head)
        if missed[0].prev > since:
            return self.reset(channel, "expired")
        if is_first and len(missed) > OVERFLOW:
            return self.reset(channel, "overflow")
        rows = missed[:PAGE]
        has_more = len(missed) > PAGE
        return Answer(self.epoch, rows[-1].seq, rows, has_more=has_more)

    def reset(self, channel, reason):
        head = self.head(channel, self.watermark)
        return Answer(self.epoch, head, reset=reason)


# Writers.


@dataclass
class Transaction:
    """One that is open: what it has written, and the keys its rows have drawn."""

    number: int
    written: dict = field(default_factory=dict)
    told: set = field(default_factory=set)
    waiting: list = field(default_factory=list)


# The proxy and its clients.


@dataclass(frozen=True)
class Message:
    epoch: str
    row: Row


@dataclass(eq=False)
class Client:
    """One that streams a channel.

    `is_raw` gets every message and keeps the rule of clients itself, as on a WebSocket;
    the others stand behind a hold with prev-id.
    """

    channel: str
    is_raw: bool = False
    epoch: str | None = None
    at: int | None = None
    shown: dict = field(default_factory=dict)
    must_fetch: bool = False
    is_held: bool = False
    is_stale: bool = False
    is_answered: bool = False
    has_more: bool = False


class EventLogMachine(RuleBasedStateMachine):
    """Everything that may happen."""

    tables_class = Tables

    @initialize()
    def begin(self):
        self.tables = self.tables_class()
        self.open = {}
        self.keys = 0
        self.pks = 0
        self.versions = 0
        self.numbers = 0
        self.epochs = 0
        self.committed = set()
        self.expected = {}
        self.offered = 0
        self.wire = []
        self.seen = set()
        self.last_ids = {}
        self.clients = [Client(COLLECTION), Client(COLLECTION, is_raw=True)]
        self.backup = None

    # Writers: keys are drawn at the INSERT, rows are seen at the COMMIT.

    def writer(self, which):
        """One of three that write at the same time, in a transaction each."""
        if which not in self.open:
            self.numbers += 1
            # Numbers of transactions are random, so they say nothing of their order.
            self.open[which] = Transaction(self.numbers * 7919 % 1009)
        return self.open[which]

    @rule(which=st.integers(0, 2), again=st.booleans())
    def create(self, which, again):
        transaction = self.writer(which)
        self.pks += 1
        self.tell(transaction, "create", self.pks)
        if again:
            self.tell(transaction, "update", self.pks)

    @precondition(lambda self: self.tables.rows)
    @rule(which=st.integers(0, 2), row=st.integers(0, 2))
    def update(self, which, row):
        self.change(which, row, "update")

    @precondition(lambda self: self.tables.rows)
    @rule(which=st.integers(0, 2), row=st.integers(0, 5))
    def delete(self, which, row):
        self.change(which, row, "delete")

    def change(self, which, row, op):
        transaction = self.writer(which)
        pks = self.free(transaction)
        if pks:
            self.tell(transaction, op, pks[row % len(pks)])

    @precondition(lambda self: self.tables.rows)
    @rule(which=st.integers(0, 2))
    def bulk(self, which):
        """One operation on all rows that nobody else has locked."""
        transaction = self.writer(which)
        pks = self.free(transaction)
        if not pks:
            return
        for pk in pks:
            if pk in transaction.written:
                # It is told as it was before the bulk, and the bulk comes after it.
                transaction.told.add(transaction.written[pk])
            self.versions += 1
            transaction.written[pk] = self.versions
        moves = [(pk, State(), State()) for pk in pks]
        self.insert(
            transaction,
            BulkNotice(op="update", topic=TOPIC, count=len(pks), moves=moves),
        )

    def free(self, transaction):
        """Rows that this transaction sees and that no other has locked."""
        locked = {
            pk
            for other in self.open.values()
            if other is not transaction
            for pk in other.written
        }
        seen = {**self.tables.rows, **transaction.written}
        return [pk for pk in sorted(seen) if seen[pk] and pk not in locked]

    def tell(self, transaction, op, pk):
        before = transaction.written.get(pk, self.tables.rows.get(pk))
        self.versions += 1
        version = None if op == "delete" else self.versions
        transaction.written[pk] = version
        self.insert(
            transaction,
            Notice(
                topic=TOPIC,
                change=Change(op=op, label="shop.tag", pk=pk, using="default"),
                before=None if before is None else State(),
                after=None if version is None else State(),
                payloads={None: json.dumps({"id": pk, "version": version})},
                turn=self.versions,
            ),
        )

    def insert(self, transaction, telling):
        self.keys += 1
        body = records.dump(telling)
        transaction.waiting.append(Waiting(self.keys, transaction.number, body, MOMENT))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2))
    def commit(self, which):
        transaction = self.open.pop(which, None)
        if transaction is None:
            return
        self.committed |= transaction.told
        for pk, version in transaction.written.items():
            was = self.tables.rows.get(pk)
            if version is None:
                self.tables.rows.pop(pk, None)
                if was is not None:
                    self.expected[pk] = ("delete", None)
            else:
                self.tables.rows[pk] = version
                self.committed.add(version)
                self.expected[pk] = ("update", version)
        self.tables.outbox.update((row.id, row) for row in transaction.waiting)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2))
    def roll_back(self, which):
        self.open.pop(which, None)

    # The relay.

    @precondition(lambda self: self.tables.outbox)
    @rule()
    def sequence(self):
        """One transaction: a relay that dies in it has changed nothing."""
        tables = self.tables
        told = []
        for group in self.departing():
            tellings = [records.load(row.body) for row in group]
            for telling in self.coalesced(tellings):
                told += events(telling, "")
        for place in sequenced(told, tables.last_seq, tables.heads):
            text = place.event.envelope(seq=place.seq, prev=place.prev)
            row = Row(place.seq, place.event.channel, place.prev, place.event.op, text)
            tables.log[row.seq] = tables.ledger[row.seq] = row
            tables.last_seq = row.seq

    def departing(self):
        """Take out of the outbox what goes now: see sequences._window()."""
        waiting = [row for _, row in sorted(self.tables.outbox.items())]
        size = WINDOW
        while True:
            window, behind = waiting[:size], waiting[size:]
            known = {row.transaction for row in window}
            unfinished = known & {row.transaction for row in behind}
            if known - unfinished or size >= WINDOW_MAX or not behind:
                break
            size *= 4
        groups = departing(window, unfinished)
        for group in groups:
            for row in group:
                del self.tables.outbox[row.id]
        return groups

    def coalesced(self, tellings):
        return coalesced(tellings)

    @rule(count=st.integers(1, 4))
    def offer(self, count):
        """Put some on the wire; the proxy may have them before the cursor moves."""
        rows = [row for seq, row in sorted(self.tables.log.items())]
        for row in [row for row in rows if row.seq > self.offered][:count]:
            self.wire.append(Message(self.tables.epoch, row))
            self.offered = row.seq

    @rule()
    def note_published(self):
        self.tables.published = max(self.tables.published, self.offered)

    @rule()
    def kill_the_relay(self):
        """The next one begins at the cursor, whatever was on its way."""
        self.offered = self.tables.published

    @rule(what=st.sampled_from("rrrd+"), index=st.integers(0, 3))
    def travel(self, what, index):
        """A message arrives, early or late; or is lost, although it was accepted; or
        arrives and comes again.
        """
        if self.wire:
            index %= len(self.wire)
            message = self.wire[index] if what == "+" else self.wire.pop(index)
            if what != "d":
                self.receive(message)

    # Retention, restart, restore.

    @rule(count=st.integers(1, 6), is_killed=st.booleans())
    def trim(self, count, is_killed):
        tables = self.tables
        if tables.log:
            tables.floor = max(tables.floor, min(tables.log) + count - 1)
            tables.floor = min(tables.floor, tables.last_seq)
        if not is_killed:
            for seq in [seq for seq in tables.log if seq <= tables.floor]:
                del tables.log[seq]

    @rule()
    def begin_an_epoch(self):
        self.epochs += 1
        self.tables.epoch = f"e{self.epochs}"

    @rule()
    def back_up(self):
        self.backup = copy.deepcopy((self.tables, self.expected))

    @precondition(lambda self: self.backup)
    @rule()
    def restore(self):
        """Yesterday's database, and a new epoch; who wrote at the time did not."""
        self.tables, self.expected = copy.deepcopy(self.backup)
        self.open.clear()
        self.begin_an_epoch()
        self.kill_the_relay()

    # The proxy.

    @rule()
    def forget_ids(self):
        """The proxy's memory of ids has ended, or the proxy has."""
        self.seen.clear()
        self.last_ids.clear()

    def receive(self, message):
        row = message.row
        id = (message.epoch, row.seq)
        if (row.channel, id) in self.seen:
            return
        self.seen.add((row.channel, id))
        held = [c for c in self.clients if c.is_held and c.channel == row.channel]
        if held:
            self.last_ids[row.channel] = id
        for client in held:
            if client.is_raw:
                self.keep_the_rule(client, message)
            elif client.is_stale:
                continue
            elif (client.epoch, client.at) == (message.epoch, row.prev):
                self.apply(client, row)
            else:
                client.is_stale = True
                self.last_ids.pop(row.channel, None)

    def keep_the_rule(self, client, message):
        """Drop what is known; ask the origin for what is missing."""
        if message.epoch == client.epoch and message.row.seq <= client.at:
            return
        if message.epoch == client.epoch and message.row.prev <= client.at:
            self.apply(client, message.row)
        else:
            self.catch_up(client)

    @rule(which=st.integers(0, 5))
    def ask_for_what_is_missed(self, which):
        """The link, after a gap or a time of silence; or a WebSocket's question."""
        client = self.clients[which % len(self.clients)]
        if client.is_held:
            self.catch_up(client)
            if self.last_ids.get(client.channel) not in (
                None,
                (client.epoch, client.at),
            ):
                client.is_stale = True
                del self.last_ids[client.channel]

    def catch_up(self, client):
        client.is_stale = False
        is_first = True
        while True:
            answer = self.tables.read(
                client.channel, client.epoch, client.at, is_first=is_first
            )
            self.take(client, answer)
            is_first = False
            if not answer.has_more:
                return

    # Clients.

    @precondition(lambda self: len(self.clients) < 6)
    @rule(is_raw=st.booleans(), pk=st.integers(0, 4))
    def come(self, is_raw, pk):
        channel = f"{COLLECTION}.{pk}" if pk else COLLECTION
        self.clients.append(Client(channel, is_raw))

    @rule(which=st.integers(0, 5))
    def connect(self, which):
        """Ask for the stream. The hold comes later, with or without pages between."""
        client = self.clients[which % len(self.clients)]
        if client.is_held:
            return
        is_first = not client.has_more
        if client.at is None:
            client.must_fetch = True
        answer = self.tables.read(
            client.channel, client.epoch, client.at, is_first=is_first
        )
        self.take(client, answer)
        client.has_more = answer.has_more
        client.is_answered = not answer.has_more

    @rule(which=st.integers(0, 5))
    def hold(self, which):
        client = self.clients[which % len(self.clients)]
        if client.is_answered:
            client.is_answered = False
            client.is_held = True
            known = self.last_ids.get(client.channel)
            client.is_stale = known not in (None, (client.epoch, client.at))

    @rule(which=st.integers(0, 5))
    def drop(self, which):
        client = self.clients[which % len(self.clients)]
        client.is_held = client.is_stale = client.is_answered = client.has_more = False

    @rule(which=st.integers(0, 5))
    def fetch(self, which):
        client = self.clients[which % len(self.clients)]
        if client.must_fetch and client.at is not None:
            client.must_fetch = False
            client.shown = self.fetched(client)

    def fetched(self, client):
        """The rows of a client's URL, as a GET shows them."""
        if client.channel == COLLECTION:
            return dict(self.tables.rows)
        own = int(client.channel.rpartition(".")[2])
        return {pk: version for pk, version in self.tables.rows.items() if pk == own}

    def take(self, client, answer):
        """Apply an answer of the origin."""
        if answer.reset:
            client.must_fetch = True
        elif client.at is not None:
            for row in answer.rows:
                self.apply(client, row)
            self.nothing_is_missed(client, answer.position)
        client.epoch, client.at = answer.epoch, answer.position

    def apply(self, client, row):
        assert row.seq > client.at, f"I3: {row.seq} after {client.at}"
        self.nothing_is_missed(client, row.seq - 1)
        client.at = row.seq
        event = json.loads(row.text)
        assert (event["seq"], event["prev"]) == (row.seq, row.prev)
        if event["op"] == "bulk":
            client.must_fetch = True
        elif event["op"] == "delete":
            client.shown.pop(event["pk"], None)
        elif "data" not in event:
            client.must_fetch = True
        else:
            version = event["data"]["version"]
            assert version in self.committed, f"I2: {version} was never committed"
            if client.shown.get(event["pk"], 0) < version:
                client.shown[event["pk"]] = version

    def nothing_is_missed(self, client, until):
        """I1: no event of the channel is passed over in silence."""
        for seq in range(client.at + 1, until + 1):
            row = self.tables.ledger.get(seq)
            assert row is None or row.channel != client.channel, f"I1: {seq} was missed"

    # What holds at any time, and in the end.

    @invariant()
    def the_log_is_in_order(self):
        if not hasattr(self, "tables"):
            return
        heads, versions = {}, {}
        ledger = self.tables.ledger
        assert list(ledger) == list(range(1, len(ledger) + 1)), "I5: a hole"
        for seq, row in ledger.items():
            assert row.prev == heads.get(row.channel, 0), "I5: prev is wrong"
            heads[row.channel] = seq
            event = json.loads(row.text)
            if event["op"] == "bulk":
                continue
            key = (row.channel, event["pk"])
            assert versions.get(key) != "gone", f"I4: {key} after its end"
            if event["op"] == "delete":
                versions[key] = "gone"
            elif "data" in event:
                version = event["data"]["version"]
                assert version > versions.get(key, 0), f"I4: {key} went back"
                versions[key] = version

    def teardown(self):
        if not hasattr(self, "tables"):
            return
        for which in sorted(self.open):
            self.commit(which)
        while self.tables.outbox:
            self.sequence()
        self.the_log_is_in_order()
        self.what_was_committed_is_in_the_log()
        while self.offered < max(self.tables.log, default=0):
            self.offer(100)
        self.tables.published = max(self.tables.published, self.tables.last_seq)
        while self.wire:
            self.travel("r", 0)
        for client in self.clients:
            while not client.is_held:
                self.connect(self.clients.index(client))
                self.hold(self.clients.index(client))
            self.catch_up(client)
            self.fetch(self.clients.index(client))
            assert client.shown == self.fetched(client), f"I6: {client}"

    def what_was_committed_is_in_the_log(self):
        told, last = {}, {}
        for seq, row in self.tables.ledger.items():
            event = json.loads(row.text)
            if row.channel != COLLECTION:
                continue
            if event["op"] == "bulk":
                for pk in event["pks"]:
                    told[pk] = ("update", None)
            elif event["op"] == "delete":
                told[event["pk"]] = ("delete", None)
            else:
                told[event["pk"]] = ("update", event["data"]["version"])
            last[event.get("pk")] = seq
        for pk, (op, version) in self.expected.items():
            assert pk in told, f"I1: row {pk} was never told"
            assert told[pk][0] == op, f"I1: the end of row {pk} was not told"
            assert told[pk][1] in (None, version), f"I1: row {pk} is told as it was"


QUICK = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_invariants_hold_whatever_happens():
    run_state_machine_as_test(EventLogMachine, settings=QUICK)


# It can fail: the obvious algorithms do.


def without(*names):
    """A machine that does not do these by itself."""

    def method(name):
        rule_of_all = getattr(EventLogMachine, name)
        return lambda self, *arguments: rule_of_all(self, *arguments)

    methods = {name: method(name) for name in names}
    return type("Machine", (EventLogMachine,), methods)


RARE = ("delete", "bulk", "begin_an_epoch", "back_up", "restore")
READING = (
    *("offer", "note_published", "kill_the_relay", "travel", "trim", "forget_ids"),
    *("ask_for_what_is_missed", "come", "connect", "hold", "drop", "fetch"),
)


class CursorOverIds(without(*RARE, *READING)):
    """Reads on behind the largest key that it has seen."""

    cursor = 0

    def departing(self):
        waiting = sorted(self.tables.outbox.items())
        window = [row for id, row in waiting if id > self.cursor]
        self.cursor = max([self.cursor, *(row.id for row in window)])
        self.tables.outbox.clear()
        return departing(window, set())


class ByFirstRow(without(*RARE, *READING)):
    """Tells transactions in the order in which they began to write."""

    def departing(self):
        return sorted(super().departing(), key=lambda rows: rows[0].id)


class ByRow(EventLogMachine):
    """Tells of rows one by one, and so of what never was."""

    def coalesced(self, tellings):
        return tellings


class Leaky(Tables):
    """Answers with what is left, and does not look whether something is gone."""

    def read(self, channel, epoch, since, *, is_first=True):
        answer = super().read(channel, epoch, since, is_first=is_first)
        if answer.reset == "expired":
            until = max(self.watermark, since)
            rows = [row for row in self.on(channel) if since < row.seq <= until]
            return Answer(self.epoch, max(since, answer.position), rows)
        return answer


class WithoutFloor(without(*RARE, "come", "forget_ids", "roll_back")):
    """Retention that nobody is told of."""

    tables_class = Leaky


class Unhealed(without(*RARE)):
    """A proxy that passes on whatever comes, as if no hold had a prev-id."""

    def receive(self, message):
        for client in self.clients:
            if client.is_held and client.channel == message.row.channel:
                self.apply(client, message.row)


def found_by(machine):
    """What the machine says of a fault; the same in every run."""
    with pytest.raises(AssertionError) as raised:
        run_state_machine_as_test(
            machine,
            settings=settings(
                QUICK,
                max_examples=3_000,
                phases=[Phase.generate],
                derandomize=True,
                database=None,
            ),
        )
    return str(raised.value)


def test_a_cursor_over_ids_loses_a_change():
    assert "I1" in found_by(CursorOverIds)


def test_transactions_by_their_first_row_turn_a_row_around():
    assert "I4" in found_by(ByFirstRow)


def test_rows_told_one_by_one_tell_what_never_was():
    assert "I2" in found_by(ByRow)


def test_without_a_look_at_what_is_gone_changes_are_missed_in_silence():
    assert "I1" in found_by(WithoutFloor)


def test_without_prev_ids_clients_miss_or_repeat_changes():
    assert found_by(Unhealed)[:2] in ("I1", "I3")


# The model answers as history.read() does.


@st.composite
def logs(draw):
    """Tables after any course of events, and a position."""
    tables = Tables()
    for channel in draw(st.lists(st.sampled_from("ab"), max_size=14)):
        tables.last_seq += 1
        seq, prev = tables.last_seq, tables.heads.get(channel, 0)
        tables.log[seq] = Row(seq, channel, prev, "said", "{}")
        tables.heads[channel] = seq
    last = tables.last_seq
    tables.published = draw(st.integers(0, last))
    tables.floor = draw(st.integers(0, last))
    if draw(st.booleans()):
        tables.log = {s: row for s, row in tables.log.items() if s > tables.floor}
    since = draw(st.none() | st.integers(0, last + 1))
    epoch = draw(st.sampled_from(["e0", "e0", "e0", "e1"]))
    return tables, epoch, since


@pytest.mark.django_db
@given(logs(), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_model_answers_as_history_does(found, is_first):
    tables, epoch, since = found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE", PAGE)
        patch.setattr(history, "OVERFLOW", OVERFLOW)
        with transaction.atomic():
            store(tables)
            position = None if since is None else str(Position(epoch, since))
            granted = None if is_first else tables.last_seq
            page = history.read("a", position, granted=granted)
            transaction.set_rollback(True)
    answer = tables.read("a", epoch, since, is_first=is_first)
    assert page.reset == answer.reset
    assert reached(page) == ([row.seq for row in answer.rows], answer.position)
    assert bool(page.next_path) == answer.has_more
    assert parse(page.position).epoch == answer.epoch


def store(tables):
    """The model's tables as the database's."""
    state = sequences.state("default")
    Sequence.objects.filter(pk=state.pk).update(
        epoch=tables.epoch, last_seq=tables.last_seq, floor=tables.floor
    )
    LoggedEvent.objects.bulk_create(
        LoggedEvent(
            seq=row.seq,
            channel=row.channel,
            prev=row.prev,
            op=row.op,
            text=row.text,
            created_at=MOMENT,
        )
        for row in tables.log.values()
    )
    Head.objects.bulk_create(Head(channel=c, seq=s) for c, s in tables.heads.items())
    published_until(tables.published)
