"""Who writes the rows of streams.py's site: see there.

    python benchmarks/streams_writer.py ENVIRONMENT

ENVIRONMENT is JSON and added to the process's own. Does the jobs of standard input, a
line of JSON each, and answers in kind. Times are those of time.monotonic(), which is
one clock for the machine.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def create(number: int) -> list[int]:
    """The keys of that many new rows."""
    rows = [Shipment(note="new") for _ in range(number)]
    for row in rows:
        row.save()
    return [row.pk for row in rows]


def paced(
    pks: list[int], rate: float, seconds: float, first: int
) -> list[tuple[int, float]]:
    """Save these rows in turn, evenly; the notes are numbers from `first` on.

    Returns each number, and when its save began.
    """
    rows = list(Shipment.objects.filter(pk__in=pks))
    journal = []
    started = time.monotonic()
    for turn in range(int(rate * seconds)):
        due = started + (turn + random.uniform(-0.2, 0.2)) / rate
        time.sleep(max(0.0, due - time.monotonic()))
        row = rows[turn % len(rows)]
        row.note = str(first + turn)
        journal.append((first + turn, time.monotonic()))
        row.save()
    return journal


def churn(number: int, rate: float, seconds: float) -> dict[str, float]:
    """Create, change and delete rows evenly: about that many there are at any time.

    Returns how many were written each way, and a second.
    """
    pks = list(Shipment.objects.values_list("pk", flat=True))
    done: Counter[str] = Counter()
    started = time.monotonic()
    for turn in range(int(rate * seconds)):
        time.sleep(max(0.0, started + turn / rate - time.monotonic()))
        [op] = random.choices(("create", "update", "delete"), (1, 3, 1))
        if abs(len(pks) - number) > number / 10:
            op = "create" if len(pks) < number else "delete"
        done[op] += 1
        if op == "create":
            pks.append(Shipment.objects.create(note=f"new {turn}").pk)
        elif op == "update":
            row = Shipment.objects.get(pk=random.choice(pks))
            row.note, row.status = (
                f"changed {turn}: é, \u2028, \U0001f600",
                random.choice("ab"),
            )
            row.save()
        else:
            Shipment.objects.get(pk=pks.pop(random.randrange(len(pks)))).delete()
    return {**done, "rate": sum(done.values()) / (time.monotonic() - started)}


JOBS: dict[str, Any] = {job.__name__: job for job in (create, paced, churn)}

if __name__ == "__main__":
    os.environ |= json.loads(sys.argv[1])
    import django

    django.setup()
    from tests.shop.models import Shipment

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(JOBS[job.pop("job")](**job)), flush=True)
