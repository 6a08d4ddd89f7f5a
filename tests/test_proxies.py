import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.core.exceptions import ImproperlyConfigured

from django_grip import proxies

SECRET = "a-secret-of-at-least-thirty-two-bytes"


def token(key=SECRET, algorithm="HS256", **claims):
    return jwt.encode(
        {"iss": "pushpin", "exp": int(time.time()) + 100, **claims}, key, algorithm
    )


@pytest.fixture
def configure(settings):
    def configure(*entries, url=None):
        settings.GRIP_URL = url
        settings.GRIP_PROXIES = list(entries)

    return configure


def test_url_and_list_are_both_proxies_and_reading_changes_neither(settings):
    entries = [{"control_uri": "http://a:5561"}]
    settings.GRIP_PROXIES = entries
    settings.GRIP_URL = "http://b:5561?key=base64:a2V5"
    for _ in range(3):
        found = proxies.configured()
        proxies.configured.cache_clear()
    assert [proxy.control_uri for proxy in found] == ["http://a:5561", "http://b:5561"]
    assert found[1].key == b"key"
    assert entries == [{"control_uri": "http://a:5561"}]


def test_s12_keys_are_not_in_the_repr(configure):
    configure({"control_uri": "http://a:1", "key": SECRET, "verify_key": SECRET})
    assert SECRET not in repr(proxies.configured())


@pytest.mark.parametrize(
    "entry",
    ["http://a:5561", {"uri": "http://a"}, {"control_uri": "file:///etc/passwd"}],
)
def test_s54_entries_that_are_not_understood_raise(configure, entry):
    configure(entry)
    with pytest.raises(ImproperlyConfigured, match="GRIP_"):
        proxies.configured()


def test_s1_without_signature_a_request_is_not_proxied(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    assert proxies.trust(None) == (False, False)


def test_a_signature_of_the_configured_key_is_trusted(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    assert proxies.trust(token()) == (True, True)


def test_only_a_verify_key_is_enough(configure):
    configure({"control_uri": "http://a:1", "verify_key": SECRET})
    assert proxies.trust(token()) == (True, True)


def test_grip_verify_key_comes_before_the_publishing_key(configure, settings):
    settings.GRIP_VERIFY_KEY = SECRET
    configure(
        {"control_uri": "http://a:1", "key": "a-token-for-publishing-only-32-bytes"}
    )
    assert proxies.trust(token()) == (True, True)


def test_s2_unsigned_tokens_are_refused(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    assert proxies.trust(token(None, "none")) == (False, False)


def test_s3_a_public_key_is_no_shared_secret(configure):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    configure({"control_uri": "http://a:1", "verify_key": pem.decode()})
    private_pem = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert proxies.trust(token(private_pem, "ES256")) == (True, True)
    # PyJWT refuses to sign with PEM, so the forger's token is made by hand.
    import base64
    import hashlib
    import hmac

    def b64(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    signed = b64(b'{"alg":"HS256","typ":"JWT"}') + b"." + b64(b'{"exp":99999999999}')
    forged = signed + b"." + b64(hmac.new(pem, signed, hashlib.sha256).digest())
    assert proxies.trust(forged.decode()) == (False, False)


@pytest.mark.parametrize("iss", ["push", "pushpin2", ["pushpin"], None])
def test_s4_the_issuer_must_be_equal(configure, iss):
    configure({"control_uri": "http://a:1", "key": SECRET, "verify_iss": "pushpin"})
    claims = {"exp": int(time.time()) + 100}
    if iss is not None:
        claims["iss"] = iss
    assert proxies.trust(jwt.api_jws.encode(_json(claims), SECRET)) == (False, False)
    assert proxies.trust(token()) == (True, True)


@pytest.mark.parametrize(
    "exp",
    [lambda now: now - 90, lambda now: "soon", lambda now: 10**400, lambda now: -1],
)
def test_s5_tokens_beyond_the_leeway_are_refused(configure, exp):
    configure({"control_uri": "http://a:1", "key": SECRET})
    claims = {"exp": exp(int(time.time()))}
    trusted = proxies.trust(jwt.api_jws.encode(_json(claims), SECRET))
    assert trusted == ((True, True) if claims["exp"] == 10**400 else (False, False))


def test_s5_within_the_leeway_is_trusted_and_exp_is_required(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    assert proxies.trust(token(exp=int(time.time()) - 30)) == (True, True)
    assert proxies.trust(jwt.encode({"iss": "pushpin"}, SECRET)) == (False, False)


def test_s9_both_keys_of_a_rotation_are_trusted(configure):
    new = "the-new-secret-of-thirty-two-bytes-or-more"
    configure({"control_uri": "http://a:1", "key": new}, {"key": SECRET})
    assert proxies.trust(token()) == (True, True)
    configure({"control_uri": "http://a:1", "key": new})
    assert proxies.trust(token()) == (False, False)


def test_without_any_key_a_grip_sig_counts_as_proxied(configure):
    configure({"control_uri": "http://a:1"})
    assert proxies.trust("anything") == (True, False)
    assert proxies.trust(None) == (False, False)


def test_s11_one_key_among_the_proxies_ends_trust_in_unsigned_requests(configure):
    configure(
        {"control_uri": "http://a:1"}, {"control_uri": "http://b:1", "key": SECRET}
    )
    assert proxies.trust("anything") == (False, False)


def test_without_proxies_nothing_is_proxied(configure):
    configure()
    assert proxies.trust("anything") == (False, False)
    assert not proxies.is_expected()


def _json(claims):
    import json

    return json.dumps(claims).encode()
