"""A writer: small transactions on rows that all writers share; half are rolled back.

    python -m tests.chaos.writer NAME SEED DIRECTORY RATE

Its journal holds, for each transaction, what it is about to commit (`intent`), and
after commit() has returned `commit`, or `rollback`. Its cell says where it is: see
OUTSIDE and those that follow. RATE is the most changes per second.
"""

import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import django

OUTSIDE, INSIDE, COMMITTING, AUTOCOMMIT = range(4)
RUN, PAUSE, STOP = range(3)

ANCHORS = 12
"""Rows that are never deleted; most transactions want one of them."""

MOST = 100
"""Rows of one write: more are told by one event, which says no versions."""

ALONE = 0.1
"""Share of the transactions that are one write in autocommit."""

LATE = 0.25
"""Share of those that have something to tell before they wait for rows of others."""

ROLLED_BACK = 0.56
"""Share of the others that are rolled back: half of all."""

POOL = 300
"""Rows above which writers rather delete than create."""


class Undo(Exception):
    """Rolls back."""


class Writer:
    def __init__(self, name, seed, directory, rate):
        from tests.chaos.journals import Cell, Journal

        self.name = name
        self.rng = random.Random(seed)
        self.rate = rate
        self.journal = Journal(directory / f"writer-{name}.journal")
        self.cell = Cell(directory / f"writer-{name}.cell")
        self.control = Cell(directory / "control")
        self.pool = {}
        self.pool_at = 0.0
        self.own = []

    def run(self):
        from django.db import Error, connection, transaction

        owed = time.monotonic()
        while (order := self.control.value) != STOP:
            if order == PAUSE:
                time.sleep(0.02)
                owed = time.monotonic()
                continue
            token = uuid4().hex
            try:
                self.refresh()
                if self.rng.random() < ALONE:
                    count = self.autocommit(token)
                else:
                    count = self.transact(token, transaction)
            except Error as exc:
                self.cell.value = OUTSIDE
                self.journal.write("error", token, type(exc).__name__, str(exc)[:80])
                self.own.clear()
                connection.close()
                time.sleep(0.05)
                count = 1
            owed = max(owed, time.monotonic() - 0.5) + count / self.rate
            time.sleep(max(0.0, owed - time.monotonic()))

    def refresh(self):
        """Look from time to time which rows there are."""
        if time.monotonic() < self.pool_at:
            return
        from tests.chaos.models import Mark, Row

        rows = Row.objects.filter(owner="").order_by("pk")
        marks = Mark.objects.order_by("pk")
        self.pool = {
            Row: list(rows.values_list("pk", flat=True)),
            Mark: list(marks.values_list("pk", flat=True)),
        }
        self.pool_at = time.monotonic() + self.rng.uniform(0.3, 1)

    def transact(self, token, transaction):
        """One transaction; returns how many changes it was about."""
        from tests.chaos.models import Done

        is_undone = self.rng.random() < ROLLED_BACK
        work = None
        try:
            with transaction.atomic():
                self.cell.value = INSIDE
                Done.objects.create(token=token)
                work = Work(self)
                if self.rng.random() < LATE:
                    work.step()
                    time.sleep(self.rng.uniform(0, 0.01))
                work.lock()
                for _ in range(self.rng.choice((1, 1, 2, 3))):
                    if self.rng.random() < 0.2:
                        with suppress(Undo), transaction.atomic():
                            Work(self, work).step()
                            raise Undo
                        work.lock(again=True)
                    work.step()
                if is_undone:
                    raise Undo
                self.journal.write("intent", token, work.changes)
                self.cell.value = COMMITTING
        except Undo:
            self.journal.write("rollback", token)
        else:
            self.journal.write("commit", token)
        finally:
            self.cell.value = OUTSIDE
        return len(work.changes)

    def autocommit(self, token):
        """One write outside of any transaction, to a row of this writer."""
        from tests.chaos.models import TENANTS, Row

        row = self.rng.choice(self.own) if self.own else None
        draw = self.rng.random()
        if row is None or (draw < 0.3 and len(self.own) < 10):
            row = Row(owner=self.name, token=token, tenant=self.rng.choice(TENANTS))
            intent = ("create", None, 1)
        elif draw < 0.4:
            self.own.remove(row)
            intent = ("delete", row.pk, None)
        else:
            row.version += 1
            row.tenant = self.rng.choice(TENANTS)
            row.token = token
            intent = ("update", row.pk, row.version)
        self.journal.write("autocommit", token, *intent)
        self.cell.value = AUTOCOMMIT
        row.delete() if intent[0] == "delete" else row.save()
        self.cell.value = OUTSIDE
        if intent[0] == "create":
            self.own.append(row)
        pk = row.pk or intent[1]
        self.journal.write("intent", token, [("row", intent[0], pk, intent[2])])
        self.journal.write("commit", token)
        return 1


class Work:
    """What one transaction does, and with which rows."""

    def __init__(self, writer, parent=None):
        self.writer = writer
        self.rng = writer.rng
        self.changes = []
        self.anchors = parent.anchors if parent else set()
        self.rows = list(parent.rows) if parent else []
        self.marks = list(parent.marks) if parent else []

    def lock(self, again=False):
        """Lock rows, those of one kind in one order; `again`: read the same anew."""
        from tests.chaos.models import Mark, Row

        rng, pool = self.rng, self.writer.pool
        own = {Row: {r.pk for r in self.rows}, Mark: {m.pk for m in self.marks}}
        if again:
            wanted = own
        else:
            hot, rest = pool[Row][:ANCHORS], pool[Row][ANCHORS:]
            self.anchors = set(hot)
            wanted = {
                Row: set(rng.sample(hot, min(len(hot), rng.choice((0, 1, 1, 2, 3)))))
                | set(rng.sample(rest, min(len(rest), rng.choice((0, 2, 8, 30, 60))))),
                Mark: set(
                    rng.sample(pool[Mark], min(len(pool[Mark]), rng.choice((0, 0, 4))))
                ),
            }
            wanted = {model: wanted[model] | own[model] for model in own}
        self.rows, self.marks = (
            list(
                model.objects.select_for_update()
                .filter(pk__in=wanted[model])
                .order_by("pk")
            )
            if wanted[model]
            else []
            for model in (Row, Mark)
        )

    def step(self):
        """Do one thing."""
        rng = self.rng
        if rng.random() < 0.25:
            self.mark()
        else:
            self.row()

    def row(self):
        from django.db.models import F

        from tests.chaos.models import TENANTS, Row

        rng = self.rng
        loose = [row for row in self.rows if row.pk not in self.anchors]
        is_full = len(self.writer.pool[Row]) > POOL
        draw = rng.random()
        if not self.rows or (draw < 0.2 and not is_full):
            row = Row.objects.create(tenant=rng.choice(TENANTS))
            self.rows.append(row)
            self.note("row", "create", [row])
        elif draw < 0.3 and not is_full:
            count = rng.randint(2, 60)
            made = [Row(tenant=rng.choice(TENANTS)) for _ in range(count)]
            made = Row.objects.bulk_create(made)
            self.rows += made
            self.note("row", "create", made)
        elif draw < 0.3 and loose:
            gone = loose[: rng.randint(2, 60)]
            self.rows = [row for row in self.rows if row not in gone]
            self.note("row", "delete", gone)
            Row.objects.filter(pk__in=[row.pk for row in gone]).delete()
        elif draw < 0.4 and loose:
            row = rng.choice(loose)
            self.rows.remove(row)
            self.note("row", "delete", [row])
            row.delete()
        elif draw < 0.5:
            rows = self.rows[:MOST]
            for row in rows:
                row.version += 1
                row.tenant = rng.choice(TENANTS)
            Row.objects.bulk_update(rows, ["version", "tenant"])
            self.note("row", "update", rows)
        elif draw < 0.6:
            tenant = rng.choice(TENANTS)
            rows = self.rows[:MOST]
            Row.objects.filter(pk__in=[row.pk for row in rows]).update(
                version=F("version") + 1, tenant=tenant
            )
            for row in rows:
                row.version, row.tenant = row.version + 1, tenant
            self.note("row", "update", rows)
        else:
            row = rng.choice(self.rows)
            row.version += 1
            if rng.random() < 0.5:
                row.tenant = rng.choice(TENANTS)
                row.save()
            else:
                row.save(update_fields=["version"])
            self.note("row", "update", [row])

    def mark(self):
        from tests.chaos.models import Mark

        rng = self.rng
        is_full = len(self.writer.pool[Mark]) > POOL / 3
        draw = rng.random()
        if not self.marks or (draw < 0.3 and not is_full):
            made = Mark.objects.bulk_create(Mark() for _ in range(rng.randint(1, 4)))
            self.marks += made
            self.note("mark", "create", made)
        elif draw < 0.6:
            mark = rng.choice(self.marks)
            self.marks.remove(mark)
            self.note("mark", "delete", [mark])
            mark.delete()
        else:
            mark = rng.choice(self.marks)
            mark.version += 1
            mark.save()
            self.note("mark", "update", [mark])

    def note(self, kind, op, objects):
        for each in objects:
            self.changes.append((kind, op, each.pk, each.version))


def main(name, seed, directory, rate):
    django.setup()
    Writer(name, int(seed), Path(directory), float(rate)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
