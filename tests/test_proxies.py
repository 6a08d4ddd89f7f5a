import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings
from django.views.debug import SafeExceptionReporterFilter
from hypothesis import given
from hypothesis import strategies as st

from django_grip import proxies

SECRET = "a-secret-of-at-least-thirty-two-bytes"


def token(key=SECRET, algorithm="HS256", **claims):
    return jwt.encode(
        {"iss": "pushpin", "exp": int(time.time()) + 100, **claims}, key, algorithm
    )


def forge(secret, claims=None, header=None):
    """An HS256 token made by hand: PyJWT refuses to make the bad ones."""
    claims = claims or {"exp": int(time.time()) + 100}
    parts = [{"alg": "HS256", "typ": "JWT", **(header or {})}, claims]
    signed = b".".join(b64(json.dumps(part).encode()) for part in parts)
    return (
        signed + b"." + b64(hmac.new(secret, signed, hashlib.sha256).digest())
    ).decode()


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


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


def test_keys_are_not_in_the_repr(configure):
    configure({"control_uri": "http://a:1", "key": SECRET, "verify_key": SECRET})
    assert SECRET not in repr(proxies.configured())


def test_s12_signatures_are_compared_in_constant_time(configure, monkeypatch):
    configure({"control_uri": "http://a:1", "key": SECRET})
    compared = []
    compare_digest = hmac.compare_digest

    def counted(one, other):
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    assert proxies.trust(token("another-secret-of-thirty-two-bytes!")) == (False, False)
    assert len(compared) == 1


@pytest.mark.parametrize(
    "entry",
    ["http://a:5561", {"uri": "http://a"}, {"control_uri": "file:///etc/passwd"}],
)
def test_s54_entries_that_are_not_understood_raise(configure, entry):
    configure(entry)
    with pytest.raises(ImproperlyConfigured, match="GRIP_"):
        proxies.configured()


def test_every_parameter_of_grip_url_is_read(configure):
    configure(
        url="https://h:1/p?iss=me&key=base64:a+b/&verify-iss=fastly:x&verify-key="
        "base64:c2VjcmV0"
    )
    (proxy,) = proxies.configured()
    assert proxy == proxies.Proxy(
        control_uri="https://h:1/p",
        control_iss="me",
        key=base64.b64decode("a+b/"),
        verify_iss="fastly:x",
        verify_key=b"secret",
    )


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
    assert proxies.trust(forge(pem)) == (False, False)


@pytest.mark.parametrize("iss", ["push", "pushpin2", ["pushpin"], None])
def test_s4_the_issuer_must_be_equal(configure, iss):
    configure({"control_uri": "http://a:1", "key": SECRET, "verify_iss": "pushpin"})
    claims = {"exp": int(time.time()) + 100}
    if iss is not None:
        claims["iss"] = iss
    assert proxies.trust(forge(SECRET.encode(), claims)) == (False, False)
    assert proxies.trust(token()) == (True, True)


@pytest.mark.parametrize(
    "exp",
    [lambda now: now - 90, lambda now: "soon", lambda now: 10**400, lambda now: -1],
)
def test_s5_tokens_beyond_the_leeway_are_refused(configure, exp):
    configure({"control_uri": "http://a:1", "key": SECRET})
    claims = {"exp": exp(int(time.time()))}
    assert proxies.trust(forge(SECRET.encode(), claims)) == (False, False)


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


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("pad", [b"", b"\n", b"  \n"])
def test_s3_no_variant_of_the_public_key_is_a_shared_secret(configure, encoding, pad):
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    configure({"control_uri": "http://a:1", "verify_key": pad + pem})
    secret = public_key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    assert proxies.trust(forge(secret + pad)) == (False, False)
    assert proxies.trust(forge(pad + secret)) == (False, False)


def test_an_rsa_key_verifies_rs256_and_nothing_else(configure):
    private = rsa.generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    private_pem = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    configure({"control_uri": "http://a:1", "verify_key": pem})
    assert proxies.trust(token(private_pem, "RS256")) == (True, True)
    assert proxies.trust(token(private_pem, "RS512")) == (False, False)
    assert proxies.trust(token(private_pem, "PS256")) == (False, False)


def test_a_private_or_broken_pem_raises_at_once(configure):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    configure({"control_uri": "http://a:1", "verify_key": pem})
    with pytest.raises(ImproperlyConfigured, match="BEGIN PUBLIC KEY"):
        proxies.configured()


def test_s6_a_token_for_another_audience_is_refused(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    assert proxies.trust(token(aud="another-service")) == (False, False)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp2"], "exp2": 1},
        {"alg": "HS512"},
    ],
)
def test_s7_headers_that_change_the_rules_are_refused(configure, header):
    configure({"control_uri": "http://a:1", "key": SECRET})
    claims = {"exp": int(time.time()) + 100}
    assert proxies.trust(forge(SECRET.encode(), claims, header)) == (False, False)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../dev/null"},
        {"kid": "http://127.0.0.1:9/key"},
        {"kid": "x" * 10_000},
        {"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/cert"},
    ],
)
def test_s8_no_header_of_a_token_names_the_key(configure, header):
    configure({"control_uri": "http://a:1", "key": SECRET})
    claims = {"exp": int(time.time()) + 100}
    assert proxies.trust(forge(b"another secret", claims, header)) == (False, False)


@pytest.mark.parametrize(
    "value", ["{t},{t}", "{t}, {t}", "x" * 1_000_000, "é.é.é", "a.b.c", "..", "\0"]
)
def test_s10_what_is_no_token_is_refused_in_one_line_without_it(
    configure, caplog, value
):
    configure({"control_uri": "http://a:1", "key": SECRET})
    good = token()
    value = value.replace("{t}", good)
    assert proxies.trust(value) == (False, False)
    (record,) = caplog.records
    assert "refused" in record.getMessage()
    assert len(record.getMessage()) < 300
    assert good not in record.getMessage()


@given(st.text(max_size=100))
def test_no_header_whatever_raises(value):
    with override_settings(GRIP_URL=f"http://a:1?key={SECRET}", GRIP_PROXIES=[]):
        assert proxies.trust(value) == (False, False)


def test_a_token_is_verified_once_and_remembered_until_it_ends(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    good = token()
    assert proxies.trust(good) == (True, True)
    assert time.time() + 100 < proxies._verified[good] < time.time() + 200
    proxies._verified["not a token"] = time.time() + 100
    assert proxies.trust("not a token") == (True, True)
    proxies._verified["not a token"] = time.time() - 1
    assert proxies.trust("not a token") == (False, False)
    proxies._verified.update({str(n): 0.0 for n in range(proxies.VERIFIED_MAX)})
    assert proxies.trust(token(jti="another")) == (True, True)
    assert len(proxies._verified) == 1


def test_remembered_tokens_are_forgotten_with_the_key(configure):
    configure({"control_uri": "http://a:1", "key": SECRET})
    good = token()
    assert proxies.trust(good) == (True, True)
    configure({"control_uri": "http://a:1", "key": SECRET + "-other"})
    assert proxies.trust(good) == (False, False)


def test_fault_1_reading_does_not_grow_the_setting_with_each_request(settings, client):
    settings.GRIP_PROXIES = [{"control_uri": "http://a:1", "key": SECRET}]
    settings.GRIP_URL = "http://b:1"
    for _ in range(3):
        client.get("/plain/", HTTP_GRIP_SIG=token())
    assert len(settings.GRIP_PROXIES) == 1
    assert len(proxies.configured()) == 2


def test_s48_error_reports_hide_keys_and_check_warns_of_the_one_they_show(
    settings, capsys
):
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://a:1", "key": SECRET}]
    settings.GRIP_VERIFY_KEY = SECRET
    shown = str(SafeExceptionReporterFilter().get_safe_settings())
    assert SECRET not in shown
    call_command("check", deploy=True)
    assert "django_grip.W002" not in capsys.readouterr().err
    settings.GRIP_URL = f"http://a:1?key={SECRET}"
    call_command("check", deploy=True)
    assert "django_grip.W002" in capsys.readouterr().err


def test_publish_servers_are_published_to_and_never_trusted(settings):
    settings.GRIP_URL = None
    settings.PUBLISH_SERVERS = [
        {"uri": "http://example.com/base-uri", "iss": "your-iss", "key": SECRET}
    ]
    (server,) = proxies.publish_servers()
    assert server.control_uri == "http://example.com/base-uri"
    assert (server.control_iss, server.key) == ("your-iss", SECRET)
    assert proxies.trust(token()) == (False, False)
    settings.PUBLISH_SERVERS = [{"control_uri": "http://example.com"}]
    with pytest.raises(ImproperlyConfigured, match="Known are uri, iss, key"):
        proxies.publish_servers()
