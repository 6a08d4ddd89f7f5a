"""`manage.py grip_check`, on real proxies and on what goes wrong in front of them."""

import socket
import subprocess
import threading
import time
from base64 import b64decode
from contextlib import contextmanager
from io import StringIO

import jwt
import pytest
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_grip import proxies, roundtrip
from django_grip.checks import check_clear_text, check_proxies
from django_grip.management import findings, probes
from django_grip.management.commands import grip_check
from django_grip.management.findings import Burst
from django_grip.publishers import endpoint
from django_grip.roundtrip import HEADER, Sighting, make_token
from django_grip.test import assert_held
from pushpin import Pushpin, accepts, free_port
from servers import KEY, MANAGE, Process, SeedSite, environment, wait_until
from tests.settings import PROXY_KEY

OTHER_KEY = "another-key-of-the-tests-of-32-bytes"
SECRET_KEY = "insecure-key-of-the-tests-of-32-bytes-or-more"


class Report:
    """What the command wrote, line by line, and its exit code."""

    def __init__(self, code, output):
        self.code = code
        self.output = output

    def line(self, level, words):
        """The one line of this level with these words, and its cure."""
        found = [
            entry
            for entry in self.output.replace("\n         Cure:", " Cure:").splitlines()
            if entry.startswith(level) and words in entry
        ]
        assert len(found) == 1, self.output
        return found[0]

    @property
    def failed(self):
        return [line for line in self.output.splitlines() if line.startswith("FAILED")]


def run(site, *arguments, **changes):
    """The command as a process, with the settings of the site; no secret in it."""
    done = subprocess.run(
        [*MANAGE, "grip_check", *arguments],
        env=environment(site.env | changes),
        capture_output=True,
        text=True,
        timeout=60,
    )
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    for secret in (KEY, KEY.removeprefix("base64:"), OTHER_KEY, SECRET_KEY):
        assert secret not in output
    assert b64decode(KEY.removeprefix("base64:")).decode() not in output
    return Report(done.returncode, output)


def call(*arguments):
    """The command in this process."""
    output = StringIO()
    try:
        call_command("grip_check", *arguments, stdout=output)
    except CommandError as exc:
        return Report(exc.returncode, f"{output.getvalue()}{exc}")
    return Report(0, output.getvalue())


@contextmanager
def hanging(reply=b""):
    """A port that takes connections, says `reply`, and then nothing. Yields it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = []

        def take():
            try:
                while True:
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(reply)
            except OSError:
                pass

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@pytest.fixture(scope="module")
def site(proxy, tmp_path_factory):
    """A small Django behind each proxy."""
    with SeedSite(tmp_path_factory.mktemp("site"), proxy) as site:
        yield site


def test_the_whole_way_is_found_to_work(site):
    report = run(site, f"--url={site.url}")
    assert report.code == 0, report.output
    report.line("OK", f"control port {site.env['GRIP_URL'].partition('?')[0]}: takes")
    report.line("OK", "answers on this machine only")
    report.line("OK", f"{site.url}/: reached this Django with a valid Grip-Sig")
    report.line("OK", "a publish arrived after")
    if site.proxy == "pushpin":
        line = report.line("WARNING", "limiter of")
        assert "found that it stalls" in line
        assert "message_rate=0" in line
    else:
        assert "GRIP_PUBLISH_INTERVAL = 0.005" in report.line("OK", "does not stall")


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A small Django, for the tests that bring a proxy of their own."""
    site = SeedSite(tmp_path_factory.mktemp("behind"), proxy=None)
    site.start_django()
    yield site
    site.stop_django()


@contextmanager
def local_proxy(site, directory, key=KEY, control_host="127.0.0.1"):
    """A local proxy in front of the site's Django, and the environment to check it."""
    port, control_port = free_port(), free_port()
    url = f"http://127.0.0.1:{control_port}"
    process = Process(
        [
            *(*MANAGE, "grip_proxy"),
            f"--listen=127.0.0.1:{port}",
            f"--upstream=http://127.0.0.1:{site.django_port}",
            f"--control={control_host}:{control_port}",
        ],
        directory / "proxy.log",
        site.env | {"GRIP_URL": f"{url}?key={key}"},
    )
    try:
        wait_until(lambda: accepts(port), "the proxy listens")
        yield f"http://127.0.0.1:{port}", f"{url}?key={KEY}"
    finally:
        process.stop()


@pytest.mark.pushpin
def test_without_a_limiter_no_stall_is_found(behind, tmp_path):
    upstream = f"127.0.0.1:{behind.django_port}"
    with Pushpin(
        tmp_path, upstream, key=KEY, settings={"message_rate": "0"}
    ) as pushpin:
        report = run(behind, f"--url={pushpin.url}", GRIP_URL=pushpin.grip_url)
    assert report.code == 0
    report.line("OK", "does not stall")


@pytest.mark.pushpin
def test_a_pushpin_with_its_default_key_is_recognised(behind, tmp_path):
    upstream = f"127.0.0.1:{behind.django_port}"
    with Pushpin(tmp_path, upstream, key="changeme") as pushpin:
        grip_url = f"{pushpin.control_url}?key={KEY}"
        report = run(behind, f"--url={pushpin.url}", GRIP_URL=grip_url)
    assert report.code == 1
    assert "found one by changeme" in report.line("FAILED", "round trip")
    assert len(report.failed) == 1


def test_another_key_than_djangos_is_recognised(behind, tmp_path):
    with local_proxy(behind, tmp_path, key=OTHER_KEY) as (url, grip_url):
        report = run(behind, f"--url={url}", GRIP_URL=grip_url)
    assert report.code == 1
    line = report.line("FAILED", "round trip")
    assert "found one by another key" in line
    assert "Set sig_key in pushpin.conf" in line


def test_a_url_past_the_proxy_is_recognised(behind, tmp_path):
    with local_proxy(behind, tmp_path) as (_, grip_url):
        direct = f"http://127.0.0.1:{behind.django_port}"
        report = run(behind, f"--url={direct}", GRIP_URL=grip_url)
    assert report.code == 1
    assert "no Grip-Sig" in report.line("FAILED", "round trip")


def test_another_prefix_than_djangos_is_recognised(behind, tmp_path):
    settings = tmp_path / "prefixed.py"
    settings.write_text("from seed_settings import *\nGRIP_PREFIX = 'other-'\n")
    path = f"{behind.env['PYTHONPATH']}:{tmp_path}"
    with local_proxy(behind, tmp_path) as (url, grip_url):
        report = run(
            behind,
            f"--url={url}",
            GRIP_URL=grip_url,
            PYTHONPATH=path,
            DJANGO_SETTINGS_MODULE="prefixed",
        )
    assert report.code == 1
    assert "expected Django to hold other-grip-check" in report.line(
        "FAILED", "GRIP_PREFIX"
    )


def test_the_control_port_of_another_proxy_is_recognised(
    behind, tmp_path, settings, monkeypatch
):
    monkeypatch.setattr(grip_check, "ARRIVAL_TIMES", (0.1, 0.3))
    (tmp_path / "other").mkdir()
    with (
        local_proxy(behind, tmp_path) as (url, _),
        local_proxy(behind, tmp_path / "other") as (_, grip_url),
    ):
        settings.GRIP_URL = grip_url
        settings.GRIP_PREFIX = "myapp-"
        settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
        report = call(f"--url={url}")
    assert report.code == 1
    assert "belong to one Pushpin" in report.line("FAILED", "found nothing")


def test_s53_a_control_port_open_to_others_is_found(behind, tmp_path):
    if not probes._own_addresses():
        pytest.skip("this machine has no address but loopback")
    with local_proxy(behind, tmp_path, control_host="") as (url, grip_url):
        report = run(behind, f"--url={url}", GRIP_URL=grip_url)
    assert report.code == 0
    assert "push_in_http_addr=127.0.0.1" in report.line("WARNING", "control port")


def test_a_closed_control_port_fails_and_the_round_trip_goes_on(settings):
    closed = free_port()
    settings.GRIP_URL = f"http://u:{OTHER_KEY}@127.0.0.1:{closed}?key={OTHER_KEY}"
    report = call(f"--url=http://127.0.0.1:{closed}/events/")
    assert report.code == 1
    line = report.line("FAILED", f"control port http://127.0.0.1:{closed}: ")
    assert "refused" in line
    assert "Start the proxy" in line
    report.line("FAILED", f"round trip through http://127.0.0.1:{closed}/events/")
    assert OTHER_KEY not in report.output


def test_a_control_port_that_never_answers_costs_its_deadline(behind):
    with hanging() as port:
        begin = time.monotonic()
        report = run(behind, GRIP_URL=f"http://127.0.0.1:{port}?key={KEY}")
        assert time.monotonic() - begin < endpoint.TIMEOUT + 4
    assert report.code == 1
    report.line("FAILED", f"control port http://127.0.0.1:{port}")
    assert "--url https://" in report.line("WARNING", "round trip of")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "does zurl run"),
        (b"HTTP/1.1 200 OK\r\nContent-", "does zurl run"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "proxy_buffering off"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", "does not reach Django"),
        (b"HTTP/1.1 301 M\r\nLocation: https://x/\r\n\r\n", "needs no redirect"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "Start the proxy"),
    ],
)
def test_nothing_hangs_at_an_address_for_clients(settings, monkeypatch, reply, words):
    monkeypatch.setattr(probes, "ANSWER_TIME", 0.3)
    monkeypatch.setattr(probes, "TIMEOUT", 0.3)
    settings.GRIP_URL = f"http://127.0.0.1:{free_port()}?key={OTHER_KEY}"
    with hanging(reply) as port:
        begin = time.monotonic()
        report = call(f"--url=http://127.0.0.1:{port}")
        assert time.monotonic() - begin < 3
    assert words in report.line("FAILED", "round trip")


def test_a_probe_that_hangs_is_left_behind():
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        probes.within(0.1, lambda: time.sleep(1))
    assert time.monotonic() - begin < 0.5


def test_the_default_address_for_clients_is_guessed_from_pushpins_ports():
    def guess(uri):
        return grip_check._client_url(proxies.Proxy(control_uri=uri))

    assert guess("http://push.internal:5561") == "http://push.internal:7999/"
    assert guess("http://[::1]:5561/") == "http://[::1]:7999/"
    assert guess("http://push.internal:5571") == ""
    assert guess("https://api.fastly.com/service/x") == ""


def test_each_proxy_has_its_url_and_more_are_a_mistake(settings):
    closed = [free_port() for _ in range(4)]
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [
        {"control_uri": f"http://127.0.0.1:{closed[0]}", "key": OTHER_KEY},
        {"control_uri": f"http://127.0.0.1:{closed[1]}", "key": OTHER_KEY},
    ]
    settings.PUBLISH_SERVERS = [{"uri": f"http://127.0.0.1:{closed[2]}"}]
    report = call(f"--url=http://127.0.0.1:{closed[3]}")
    for port in closed[:3]:
        report.line("FAILED", f"control port http://127.0.0.1:{port}")
    report.line("FAILED", f"round trip through http://127.0.0.1:{closed[3]}/")
    report.line("WARNING", f"round trip of http://127.0.0.1:{closed[1]}")
    assert "3 times; the settings have 2" in call(*["--url=http://h/"] * 3).output


@pytest.mark.parametrize("url", ["localhost:7999", "ftp://h/", "http://", "http://h:x"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(CommandError, match=r"--url is http://host:port/path"):
        call_command("grip_check", "--url", url)


def test_nothing_configured_fails_with_the_cure(settings):
    settings.GRIP_URL = None
    report = call()
    assert report.code == 1
    assert "GRIP_PROXIES = [" in report.line("FAILED", "found neither")


@pytest.mark.parametrize(
    ("key", "level", "words"),
    [
        ("changeme", "FAILED", "everybody knows"),
        ("Change-Me", "FAILED", "everybody knows"),
        ("short", "WARNING", "found 5"),
        ("base64:" + "x" * 40, "WARNING", "begins with base64:"),
        (None, "WARNING", "pretend to be the proxy"),
    ],
)
def test_a_weak_key_is_told(settings, key, level, words):
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": f"http://127.0.0.1:{free_port()}"}]
    if key is not None:
        settings.GRIP_PROXIES[0]["key"] = key
    report = call()
    assert words in report.line(level, "key:")
    assert key is None or key not in report.output


def test_a_good_key_is_not_mentioned(settings):
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [
        {"control_uri": f"http://127.0.0.1:{free_port()}", "key": OTHER_KEY}
    ]
    call().line("OK", "settings: understood; proxies: 1.")


def test_a_publisher_that_publishes_nowhere_is_told():
    assert "locmem" in call().line("WARNING", "GRIP_PUBLISHER")


def test_settings_with_errors_end_in_findings_not_in_a_traceback(settings):
    settings.GRIP_PUBLISHER = "no.such.Publisher"
    settings.GRIP_URL = f"http://127.0.0.1:{free_port()}?key={OTHER_KEY}"
    call().line("FAILED", "django_grip.E003")
    for url in ("http://", "http://127.0.0.1:99999"):
        settings.GRIP_URL = url
        call().line("FAILED", "settings: ")


SCHEMES = ["file:///etc/passwd", "ftp://h:5561", "gopher://h:70/_x", "localhost", "//h"]


@pytest.mark.parametrize("uri", SCHEMES)
@pytest.mark.parametrize("setting", ["GRIP_URL", "GRIP_PROXIES", "PUBLISH_SERVERS"])
def test_s54_only_http_and_https_are_published_to(settings, setting, uri):
    values = {
        "GRIP_URL": uri,
        "GRIP_PROXIES": [{"control_uri": uri}],
        "PUBLISH_SERVERS": [{"uri": uri}],
    }
    settings.GRIP_URL = None
    setattr(settings, setting, values[setting])
    with pytest.raises(ImproperlyConfigured, match="begins with http:// or https://"):
        proxies.configured() + proxies.publish_servers()
    assert [message.id for message in check_proxies()] == ["django_grip.E002"]
    assert check_clear_text() == []
    report = call()
    assert "begins with http://" in report.line("FAILED", "settings")


@pytest.mark.parametrize("host", ["8.8.8.8", "[2a00:1450::1]", "u:p@8.8.8.8"])
def test_s53_a_public_address_by_http_is_warned_of(settings, host):
    settings.GRIP_URL = f"http://{host}:5561"
    (warning,) = check_clear_text()
    assert warning.id == "django_grip.W003"
    assert "p@" not in warning.msg
    settings.GRIP_URL = f"https://{host}"
    assert check_clear_text() == []
    settings.PUBLISH_SERVERS = [{"uri": f"http://{host}/"}]
    assert len(check_clear_text()) == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "[::1]", "[fd00::1]", "pushpin"]
)
def test_s53_private_addresses_and_names_are_not(settings, host):
    settings.GRIP_URL = f"http://{host}:5561"
    assert check_clear_text() == []


def test_s53_the_command_looks_names_up():
    public = findings.remote_control(
        "http://h:5561", is_public=True, is_encrypted=False
    )
    assert public.level == "WARNING"
    assert "https" in public.cure
    for is_public, is_encrypted in [(True, True), (False, False)]:
        finding = findings.remote_control("http://h:5561", is_public, is_encrypted)
        assert finding.level == "OK"


# The middleware's part.


def seen(response):
    return Sighting.from_line(response.content.splitlines()[0])


def test_a_trusted_request_is_held_on_the_channel(through_proxy, settings):
    settings.GRIP_PREFIX = "p-"
    headers = {HEADER: make_token("room"), "Grip-Feature": "status, link:next"}
    response = through_proxy.get("/no/such/path/", headers=headers)
    assert_held(response, channels=["room"])
    assert seen(response).channel == "p-room"
    assert (seen(response).signed, seen(response).issuer) == (True, "pushpin")
    assert -2 <= seen(response).skew <= 1
    assert seen(response).features == ["link:next", "status"]


@pytest.mark.parametrize(
    ("claims", "key", "refusal"),
    [
        ({}, OTHER_KEY, "InvalidSignatureError"),
        ({"exp": 1}, PROXY_KEY, "ExpiredSignatureError"),
        ({"exp": None}, PROXY_KEY, "MissingRequiredClaimError"),
    ],
)
def test_an_untrusted_request_is_told_why_and_not_held(client, claims, key, refusal):
    claims = {"iss": "pushpin", "exp": int(time.time()) + 3600} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    grip_sig = jwt.encode(claims, key, algorithm="HS256")
    headers = {HEADER: make_token("room"), "Grip-Sig": grip_sig}
    response = client.get("/plain/", headers=headers)
    assert "Grip-Hold" not in response
    assert response["Cache-Control"] == "no-store, no-transform"
    assert not seen(response).proxied
    assert seen(response).refusals == [refusal]
    assert not seen(response).is_default_key


def test_an_exp_beyond_all_numbers_is_refused(client):
    grip_sig = jwt.encode({"exp": 10**400}, PROXY_KEY, algorithm="HS256")
    headers = {HEADER: make_token("room"), "Grip-Sig": grip_sig}
    sighting = seen(client.get("/plain/", headers=headers))
    assert (sighting.proxied, sighting.skew) == (False, None)


def test_the_default_key_of_pushpin_is_seen(client):
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        grip_sig = jwt.encode({"exp": int(time.time()) + 99}, "changeme")
    headers = {HEADER: make_token("room"), "Grip-Sig": grip_sig}
    assert seen(client.get("/plain/", headers=headers)).is_default_key


@pytest.mark.parametrize("grip_sig", ["x", "a.b.c", "..", "é.é.é", "a." * 2000])
def test_a_grip_sig_that_is_none_is_an_ordinary_refusal(client, grip_sig):
    headers = {HEADER: make_token("room"), "Grip-Sig": grip_sig}
    sighting = seen(client.get("/plain/", headers=headers))
    assert (sighting.proxied, sighting.skew) == (False, None)


def test_without_proxies_the_request_is_answered_and_not_held(client, settings):
    settings.GRIP_URL = None
    headers = {HEADER: make_token("room"), "Grip-Sig": "x"}
    response = client.get("/plain/", headers=headers)
    assert "Grip-Hold" not in response
    assert seen(response).refusals == []


def old_token():
    now = time.time() - roundtrip.MAX_AGE - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now)
        return make_token("room")


@pytest.mark.parametrize(
    "token",
    [
        lambda: "forged",
        lambda: "",
        lambda: signing.dumps("room"),
        lambda: signing.dumps("room", key="another", salt="django_grip.roundtrip"),
        old_token,
    ],
)
def test_s13_a_forged_old_or_foreign_token_is_ignored(through_proxy, token):
    response = through_proxy.get("/plain/", headers={HEADER: token()})
    assert "Grip-Hold" not in response
    assert Sighting.from_line(response.content) is None


def test_a_request_without_grip_sig_is_never_asked(client):
    response = client.get("/plain/", headers={HEADER: make_token("room")})
    assert Sighting.from_line(response.content) is None


def test_a_token_is_no_key_to_anything_else():
    with override_settings(SECRET_KEY="another"):
        foreign = make_token("room")
    assert roundtrip.read_token(foreign) is None
    assert roundtrip.read_token(make_token("room")) == "room"


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"null", b"<html>", b'{"a": 1}'])
def test_what_is_no_sighting_is_none(line):
    assert Sighting.from_line(line) is None


# What is said of what was seen.


def sighting(**changes):
    values = {
        "channel": "c",
        "proxied": True,
        "signed": True,
        "refusals": [],
        "is_default_key": False,
        "issuer": "pushpin",
        "skew": 0.0,
        "features": [],
    }
    return Sighting(**values | changes)


def test_clocks_that_differ_are_told():
    def told(**changes):
        found = list(findings.sighting("u", sighting(**changes), "c"))
        return [entry.text for entry in found if entry.subject.startswith("clock")]

    assert told(skew=-findings.SKEW_MAX) == []
    assert "90 s ahead of it" in told(skew=90.0)[0]
    assert "3700 s behind it" in told(skew=-3700.0)[0]
    assert told(skew=None) == []
    assert told(skew=-3000.0, issuer="fastly:abc") == []


@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        (["InvalidSignatureError", "ExpiredSignatureError"], "expired"),
        (["InvalidSignatureError", "InvalidIssuerError"], "another issuer"),
        (["InvalidAlgorithmError", "InvalidSignatureError"], "by another key"),
        (["InvalidAlgorithmError"], "another kind of key"),
        (["DecodeError"], "DecodeError"),
        ([], "nothing in its settings"),
    ],
)
def test_the_refusal_that_tells_most_is_told(refusals, words):
    refused = sighting(proxied=False, signed=False, refusals=refusals)
    (finding,) = findings.sighting("u", refused, "c")
    assert finding.level == "FAILED"
    assert words in finding.text
    assert finding.cure


def burst(delays, gaps=None):
    gaps = gaps or [0.01] * len(delays)
    answered, moment = {}, 0.0
    for number, gap in enumerate(gaps):
        moment += gap
        answered[number] = moment
    arrived = {
        number: answered[number] + delay
        for number, delay in enumerate(delays)
        if delay is not None
    }
    return Burst(answered=answered, arrived=arrived, until=moment + 5)


STALLED = [(40 - number) * 0.01 + 0.025 for number in range(40)]


def test_a_stall_is_told_from_a_slow_or_noisy_way():
    assert burst(STALLED).is_stalled
    assert burst([delay + 0.2 for delay in STALLED]).is_stalled
    assert burst([None] * 35 + [0.025] * 5).is_stalled, "lost until after the wait"
    assert burst([0.002] * 40).is_stalled is False
    assert burst([0.3] * 40).is_stalled is False
    assert burst([0.002, 0.06] * 20).is_stalled is False
    assert burst(STALLED, gaps=[0.03] * 40).is_stalled is None
    assert burst([], gaps=[]).is_stalled is None


def test_a_gap_in_the_middle_does_not_hide_a_stall():
    half = [(20 - number) * 0.01 + 0.025 for number in range(20)]
    assert burst(half * 2, gaps=[0.01] * 20 + [0.08] + [0.01] * 19).is_stalled


def test_what_the_stall_means_depends_on_the_interval():
    stalled, smooth = burst(STALLED), burst([0.002] * 40)
    unknown = burst(STALLED, gaps=[0.05] * 40)
    assert findings.stall("u", [stalled], 0.03).level == "WARNING"
    assert findings.stall("u", [smooth, stalled], 0.005).level == "FAILED"
    assert "0.005" in findings.stall("u", [smooth], 0.03).text
    assert "0.005" not in findings.stall("u", [smooth], 0.005).text
    assert findings.stall("u", [unknown, smooth], 0.03).level == "OK"
    assert "Try again" in findings.stall("u", [unknown, unknown], 0.03).cure


def test_a_finding_is_a_line_and_its_cure():
    assert str(findings.Finding("OK", "a", "b.")) == "OK       a: b."
    failed = findings.Finding("FAILED", "a", "b\n\x1b[0m.", "c.")
    assert str(failed) == "FAILED   a: b  [0m.\n         Cure: c."
