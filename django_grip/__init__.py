"""Realtime for Django behind a GRIP proxy (Pushpin, Fastly Fanout)."""

from django_grip.holds import (
    GripData,
    GripInstruct,
    set_hold_longpoll,
    set_hold_stream,
)
from django_grip.middleware import GripMiddleware
from django_grip.pubcontrol import get_pubcontrol
from django_grip.publishing import apublish, publish
from django_grip.websocket import websocket_only

__all__ = [
    "GripData",
    "GripInstruct",
    "GripMiddleware",
    "apublish",
    "get_pubcontrol",
    "publish",
    "set_hold_longpoll",
    "set_hold_stream",
    "websocket_only",
]
