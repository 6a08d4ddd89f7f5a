"""Statements: many rows by one statement, or by a few.

Not by the ORM: these are in every write and in every step of the relay, and cost half
of what they would. And MariaDB must not choose how to find what is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import models

ROWS = 1_000
"""Rows of one statement."""

BYTES = 4 * 1024 * 1024
"""Bytes of text in one statement: MySQL takes 16 MiB at most, as installed."""


def insert(
    connection: Any,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Insert rows of values, as the database's driver takes them."""
    quote = connection.ops.quote_name
    names = ", ".join(map(quote, columns))
    into = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES "
    places = f"({', '.join(['%s'] * len(columns))})"
    with connection.cursor() as cursor:
        for chunk in _chunks(rows):
            cursor.execute(
                into + ", ".join([places] * len(chunk)),
                [value for row in chunk for value in row],
            )


def remove(connection: Any, model: type[models.Model], keys: Sequence[Any]) -> int:
    """Remove the rows with these primary keys, and wait for no others.

    Returns how many there were.

    For a list of keys MariaDB may read the whole table, and it waits for every row
    that somebody else is about to write; so it is told to look each key up.
    """
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    key = quote(model._meta.pk.column)
    if connection.vendor == "mysql":
        head = "DELETE kept FROM (SELECT %s AS gone"
        tail = f") AS list STRAIGHT_JOIN {table} AS kept ON kept.{key} = list.gone"
        between = " UNION ALL SELECT %s"
    else:
        head, tail, between = f"DELETE FROM {table} WHERE {key} IN (%s", ")", ", %s"
    removed = 0
    with connection.cursor() as cursor:
        for start in range(0, len(keys), ROWS // 2):
            chunk = list(keys[start : start + ROWS // 2])
            cursor.execute(head + between * (len(chunk) - 1) + tail, chunk)
            removed += cursor.rowcount
    return removed


def _chunks(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    start = size = 0
    for end, row in enumerate(rows):
        length = sum(len(value) for value in row if isinstance(value, str))
        if end - start == ROWS or (size and size + length > BYTES):
            yield rows[start:end]
            start, size = end, 0
        size += length
    if start < len(rows):
        yield rows[start:]


def moment(connection: Any, value: Any) -> Any:
    """A datetime as the database's driver takes it."""
    return connection.ops.adapt_datetimefield_value(value)
