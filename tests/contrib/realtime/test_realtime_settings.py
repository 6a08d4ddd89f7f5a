"""GRIP_REALTIME: what cannot be meant is told, with what could be."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from django_grip.contrib.realtime import conf


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"TICKET_TLL": 5}, "Did you mean 'TICKET_TTL'"),
        ({"REVOKE_ON": "logout"}, "is a tuple; got the str 'logout'"),
        ({"REVOKE_ON": ["log_out"]}, "no 'log_out'. Did you mean 'logout'"),
        ({"REVOKE_ON": ["x"]}, "Known: ['logout', 'password'"),
        ({"TICKET_TTL": 61}, "1 to 60 seconds; got 61"),
        ({"TICKET_TTL": 0}, "1 to 60 seconds; got 0"),
        ({"TICKET_TTL": None}, "1 to 60 seconds; got None"),
    ],
)
def test_what_cannot_be_meant_is_an_error_of_check(settings, given, text):
    settings.GRIP_REALTIME = given
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    assert "grip_realtime.E001" in str(caught.value)
    assert text in str(caught.value)
    with pytest.raises(ImproperlyConfigured):
        conf.check()


def test_what_can_be_meant_passes(settings):
    settings.GRIP_REALTIME = {"REVOKE_ON": [], "TICKET_TTL": 1}
    conf.check()
    assert conf.revoke_on() == ()
    settings.GRIP_REALTIME = {"REVOKE_ON": ("groups", "logout"), "TICKET_TTL": 60}
    conf.check()
