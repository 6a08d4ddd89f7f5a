"""Judgement: by the writers' journals and the database, on the log and the followers.

A net change is what one committed transaction did to one row. It has one event on the
channel of the collection: a row's has the op, the pk and the version, a mark's the op
and the pk.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

LABELS = {"row": "chaos.row", "mark": "chaos.mark"}


@dataclass
class Logged:
    """An event of the log."""

    seq: int
    prev: int
    channel: str
    op: str
    pk: int | None
    version: int | None
    reason: str | None

    @property
    def told(self):
        """What a client hears of it."""
        return (self.op, self.pk, self.version, self.reason)


@dataclass
class Verdict:
    """How often each rule was broken, with the first examples; and what was seen."""

    faults: Counter = field(default_factory=Counter)
    examples: list = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)

    def fault(self, kind, what, count=1):
        self.faults[kind] += count
        if self.faults[kind] <= 10:
            self.examples.append(f"{kind}: {what}")


FAULTS = ("lost", "phantom", "duplicate", "inversion", "gap", "state", "harness")


def committed(journals, is_done, autocommitted, verdict):
    """The net changes of each committed transaction: (kind, op, pk, version).

    `is_done(token)` and `autocommitted(token, op, pk)`, which gives a change or None,
    ask the database. A journal and the database that disagree are a fault of the
    harness, or of the database.
    """
    changes = []
    for lines in journals:
        intents, outcomes, alone = {}, {}, {}
        for line in lines:
            what, token, *rest = line
            if what == "intent":
                intents[token] = rest[0]
            elif what == "autocommit":
                alone[token] = rest
            elif what != "error":
                outcomes[token] = what
            else:
                verdict.seen["errors"] += 1
                outcomes.setdefault(token, "error")
        for token, outcome in outcomes.items():
            verdict.seen[f"transactions: {outcome}"] += 1
            if outcome != "error" and token not in alone:
                is_commit = outcome == "commit"
                if is_done(token) != is_commit:
                    kind = "lost" if is_commit else "phantom"
                    verdict.fault("harness", f"{kind} by the database: {token}")
        for token, intent in intents.items():
            outcome = outcomes.get(token)
            if outcome != "commit" and token not in alone:
                verdict.seen["outcomes looked up"] += 1
                if not is_done(token):
                    continue
            changes += net(intent)
        for token, (op, pk, _) in alone.items():
            if outcomes.get(token) != "commit":
                verdict.seen["outcomes looked up"] += 1
                change = autocommitted(token, op, pk)
                if change is not None:
                    changes.append(change)
    return changes


def net(intent):
    """What the writes of one transaction come to, row by row."""
    rows = {}
    for kind, op, pk, version in intent:
        first = rows[kind, pk][0] if (kind, pk) in rows else op
        rows[kind, pk] = (first, op, version)
    for (kind, pk), (first, last, version) in rows.items():
        if last == "delete":
            if first != "create":
                yield (kind, "delete", pk, None)
        else:
            yield (kind, "create" if first == "create" else "update", pk, version)


def judge_log(log, changes, shown, verdict):
    """`shown`: what the database has at the end, pk -> (version, tenant), by kind."""
    heads = defaultdict(int)
    for number, event in enumerate(log, log[0].seq if log else 0):
        if event.seq != number:
            verdict.fault("gap", f"{event} has the place of {number}")
        if event.prev != heads[event.channel]:
            verdict.fault("gap", f"{event} after {heads[event.channel]}")
        heads[event.channel] = event.seq
    for kind, label in LABELS.items():
        expected = Counter(
            (op, pk, version if kind == "row" else None)
            for what, op, pk, version in changes
            if what == kind
        )
        events = [event for event in log if event.channel == label]
        found = Counter(
            (event.op, event.pk, event.version)
            for event in events
            if event.op != "close"
        )
        for key, count in (expected - found).items():
            verdict.fault("lost", f"{kind} {key} is not in the log", count)
        for key, count in (found - expected).items():
            what = "duplicate" if key in expected else "phantom"
            verdict.fault(what, f"{kind} {key} is in the log", count)
        judge_order(kind, events, verdict)
        rows = {pk: version for pk, (version, _) in shown[kind].items()}
        judge_state(f"the log of {label}", kind, fold(events), rows, verdict)
        check_journals(kind, changes, rows, verdict)
    for tenant in sorted({tenant for _, tenant in shown["row"].values()}):
        channel = f"chaos.row~tenant.{tenant}"
        events = [event for event in log if event.channel == channel]
        rows = {
            pk: version for pk, (version, at) in shown["row"].items() if at == tenant
        }
        judge_order("row", events, verdict)
        judge_state(f"the log of {channel}", "row", fold(events), rows, verdict)


def check_journals(kind, changes, rows, verdict):
    """Whether the journals explain the database: else nothing follows from them."""
    versions, gone = {}, set()
    for what, op, pk, version in changes:
        if what == kind:
            if op == "delete":
                gone.add(pk)
            else:
                versions[pk] = max(versions.get(pk, 0), version)
    for pk in gone:
        versions.pop(pk, None)
    if versions != rows:
        odd = [pk for pk in versions | rows if versions.get(pk) != rows.get(pk)]
        verdict.fault("harness", f"journals do not explain {kind} {odd[:10]}", len(odd))


def judge_order(kind, events, verdict):
    """A row's versions only grow; nothing comes before create, or after delete."""
    versions, gone = {}, set()
    for event in events:
        if event.op == "close":
            continue
        if event.pk in gone:
            verdict.fault("inversion", f"{kind} {event} after its delete")
        if event.op == "delete":
            if event.reason is None:
                gone.add(event.pk)
        elif event.version is not None:
            if event.version <= versions.get(event.pk, 0):
                verdict.fault("inversion", f"{kind} {event} after a later version")
            versions[event.pk] = event.version
        elif event.op == "create" and event.pk in versions:
            verdict.fault("inversion", f"{kind} {event} after an update")
        else:
            versions[event.pk] = 0


def fold(events):
    """What a client that has seen all of these shows."""
    shown = {}
    for event in events:
        if event.op == "delete":
            shown.pop(event.pk, None)
        elif event.op != "close":
            shown[event.pk] = event.version
    return shown


def judge_state(whose, kind, shown, rows, verdict):
    if kind == "mark":
        shown, rows = dict.fromkeys(shown), dict.fromkeys(rows)
    odd = [pk for pk in shown | rows if shown.get(pk, -1) != rows.get(pk, -1)]
    if odd:
        few = [(pk, shown.get(pk), rows.get(pk)) for pk in odd[:5]]
        verdict.fault("state", f"{whose} differs (pk, shown, stored): {few}", len(odd))


def judge_follower(name, lines, log, head, verdict):
    """Every event of the channel once and in order, between start and reset."""
    events = {event.seq: event for event in log if event.op != "close"}
    order = sorted(events)
    at, applied, last = None, [], 0

    def close(is_end):
        if at is None:
            return
        until = head if is_end else (applied[-1] if applied else at)
        due = [seq for seq in order if at < seq <= until]
        missing = set(due) - set(applied)
        for seq in sorted(missing):
            verdict.fault("lost", f"{name} has not had {events[seq]}")

    for what, *rest in lines:
        if what in ("start", "reset"):
            close(is_end=False)
            at = last = int(rest[0].partition(".")[2])
            applied = []
            verdict.seen[f"{what}: {rest[1]}" if rest[1] else what] += 1
            if rest[1] not in (None, "expired", "overflow"):
                verdict.fault("harness", f"{name} was reset: {rest[1]}")
        elif what == "event":
            seq, *told = rest
            if seq in applied[-1:] or seq <= last:
                verdict.fault("duplicate", f"{name} applied {seq} after {last}")
            last = seq
            applied.append(seq)
            verdict.seen["events applied"] += 1
            if seq not in events:
                verdict.fault("phantom", f"{name} has had {rest}")
            elif events[seq].told != tuple(told):
                verdict.fault("phantom", f"{name} has had {rest}, not {events[seq]}")
        elif what == "cut":
            verdict.seen[f"cut: {rest[0]}"] += 1
        else:
            verdict.seen[what] += 1
    if at is None:
        verdict.fault("harness", f"{name} never started")
    close(is_end=True)
