"""What the writers write. Every write of a row makes its version greater by one."""

from django.db import models

from django_grip.contrib.realtime import RealtimeManager, realtime

TENANTS = ("a", "b", "c")


@realtime(fields=["id", "tenant", "version"], scopes={"tenant": "tenant"})
class Row(models.Model):
    """A row with data and a scope, in which it moves.

    Rows with an owner are written by that writer only, in autocommit; the token is of
    the last write, and says whether a write arrived that nobody has heard of.
    """

    tenant = models.CharField(max_length=8)
    version = models.IntegerField(default=1)
    owner = models.CharField(max_length=32, default="")
    token = models.CharField(max_length=32, default="", db_index=True)

    objects = RealtimeManager()


@realtime
class Mark(models.Model):
    """A thin row: its events say op and pk."""

    version = models.IntegerField(default=1)

    objects = RealtimeManager()


class Done(models.Model):
    """Each transaction leaves its token here: it is found if that was committed."""

    token = models.CharField(max_length=32, primary_key=True)
