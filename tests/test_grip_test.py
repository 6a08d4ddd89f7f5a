"""The helpers we ship for the tests of others."""

import pytest
from asgiref.sync import async_to_sync
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.exceptions import ImproperlyConfigured

from django_grip.test import AsyncGripClient, GripClient, assert_held, grip_sig
from django_grip.websocket_events import CONTENT_TYPE


def test_requests_of_the_clients_come_through_the_proxy(settings):
    settings.GRIP_PREFIX = "p-"
    assert_held(GripClient().get("/hold/"), channels=["room"])
    assert_held(async_to_sync(AsyncGripClient().get)("/ahold/"), channels=["room"])


def test_a_header_of_the_call_wins():
    client, aclient = GripClient(), AsyncGripClient()
    headers = {"grip-sig": "forged"}
    assert "Grip-Hold" not in client.get("/hold/", headers=headers)
    assert "Grip-Hold" not in async_to_sync(aclient.get)("/hold/", headers=headers)


def test_a_websocket_without_events_is_what_the_proxy_asks_after_silence(settings):
    settings.ROOT_URLCONF = "tests.websocket_urls"
    response = GripClient().websocket("/echo/")
    assert (response.status_code, response["Content-Type"]) == (200, CONTENT_TYPE)
    response = async_to_sync(AsyncGripClient().websocket)("/aecho/")
    assert (response.status_code, response["Content-Type"]) == (200, CONTENT_TYPE)


def test_without_a_key_the_signature_is_any(settings):
    settings.GRIP_URL = "http://127.0.0.1:9"
    assert_held(GripClient().get("/hold/"), channels=["room"])


def test_assert_held_says_what_it_found(client):
    with pytest.raises(AssertionError, match="GripClient sends such requests"):
        assert_held(client.get("/hold/"), channels=["room"])
    held = GripClient().get("/hold/")
    with pytest.raises(AssertionError, match=r"\['room'\], not on \['other'\]"):
        assert_held(held, channels=["other"])
    with pytest.raises(AssertionError, match="as stream, not as response"):
        assert_held(held, channels=["room"], hold="response")


def test_a_public_key_cannot_sign_and_the_cure_is_said(settings):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://a:1", "verify_key": pem}]
    with pytest.raises(ImproperlyConfigured, match="shared secret"):
        grip_sig()
