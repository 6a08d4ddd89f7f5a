"""The tables of the event log. Only its own modules write to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_grip.contrib.eventlog.records import OP_MAX
from django_grip.contrib.realtime.channels import NAME_MAX

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField


class ChannelField(_CharField):
    """A channel's name without GRIP_PREFIX, told apart from every other to the byte.

    MySQL's usual collations take `A` for `a`.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """See Field.db_parameters()."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


class Outbox(models.Model):
    """What a transaction has to say, written with the change itself.

    `body` is a record: see records.py. `transaction` is the same number for all rows of
    one transaction. The relay takes the rows out; there is no index but the key, as
    every write pays for it.
    """

    id = models.BigAutoField(primary_key=True)
    transaction = models.BigIntegerField()
    body = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "waiting change"
        verbose_name_plural = "waiting changes"

    def __str__(self) -> str:
        return f"{self.pk} of {self.created_at}"


class LoggedEvent(models.Model):
    """An event in its place in the order.

    `seq` grows without holes; `prev` is the seq of the event before it on its channel,
    0 for the first. `op` is the event's; `text` is its envelope. Without one it is what
    ends streams, and `op` says why: "age", or else "close".
    """

    seq = models.BigIntegerField(primary_key=True)
    channel = ChannelField(max_length=NAME_MAX)
    prev = models.BigIntegerField()
    op = models.CharField(max_length=OP_MAX)
    origin = models.TextField(null=True)  # noqa: DJ001 - "" is an origin as well.
    text = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "event"
        indexes = (models.Index(fields=("channel", "seq"), name="grip_event_channel"),)

    def __str__(self) -> str:
        return f"{self.seq} {self.op} {self.channel}"


class Head(models.Model):
    """The last event of a channel. It outlives the event itself."""

    channel = ChannelField(max_length=NAME_MAX, primary_key=True)
    seq = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.channel} {self.seq}"


class Held(models.Model):
    """A channel that streams were opened on, and when these are to be closed."""

    channel = ChannelField(max_length=NAME_MAX, primary_key=True)
    close_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.channel} until {self.close_at}"


class Sequence(models.Model):
    """The one row (id 1) that gives out seqs; whoever does so holds its lock.

    Events up to `floor` may be gone. The lease says which relay works; `seen_at` when
    one last did.
    """

    id = models.BigAutoField(primary_key=True)
    epoch = models.CharField(max_length=16)
    last_seq = models.BigIntegerField(default=0)
    floor = models.BigIntegerField(default=0)
    lease_owner = models.CharField(max_length=64, default="")
    lease_until = models.DateTimeField(null=True)
    seen_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.last_seq}"


class Target(models.Model):
    """How far one server has been told."""

    server = models.CharField(max_length=191, primary_key=True)
    published = models.BigIntegerField(default=0)
    failing_since = models.DateTimeField(null=True)
    last_error = models.TextField(default="")

    class Meta:
        verbose_name = "proxy"
        verbose_name_plural = "proxies"

    def __str__(self) -> str:
        return self.server


class SetAside(models.Model):
    """What could not be told, and why.

    Either a row of the outbox (`body`, `transaction`), which can be tried again, or an
    event that one server refused (`seq`, `server`): its clients fetch it by HTTP.
    """

    id = models.BigAutoField(primary_key=True)
    reason = models.TextField()
    body = models.TextField(default="")
    transaction = models.BigIntegerField(null=True)
    seq = models.BigIntegerField(null=True)
    server = models.CharField(max_length=191, default="")
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "change set aside"
        verbose_name_plural = "changes set aside"

    def __str__(self) -> str:
        return self.reason
