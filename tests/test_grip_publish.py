"""`manage.py grip_publish`: what is published, and what is said of it."""

import io
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from clients import EventStream
from pushpin import accepts, free_port
from servers import MANAGE, SeedSite, environment, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The project of 2017, whose GRIP_PREFIX is myapp-, behind the local proxy."""
    with SeedSite(tmp_path_factory.mktemp("site"), "localproxy") as site:
        yield site


def call(*arguments):
    output = StringIO()
    call_command("grip_publish", *arguments, stdout=output)
    return output.getvalue()


def formats(published):
    (item,) = published
    return item.formats


def test_a_stream_gets_it_and_the_proxy_is_named(site):
    with EventStream(f"{site.url}/stream/") as stream:
        wait_until(lambda: stream.lines_seen("[stream open]"), "the stream is open")
        output = site.manage("grip_publish", "test", "hello", "--sse", "greeting")
        event = stream.next()
    assert (event.event, event.data) == ("greeting", "hello")
    address = site.env["GRIP_URL"].partition("?")[0]
    assert output == f"Accepted by {address}.\n"


def test_all_three_kinds_of_client_get_it(published, settings):
    settings.GRIP_PREFIX = "p-"
    output = call("room", "hello", "--id", "2", "--prev-id", "1")
    assert formats(published) == {
        "http-stream": {"content": "hello\n"},
        "http-response": {"body": "hello"},
        "ws-message": {"content": "hello"},
    }
    (item,) = published
    assert (item.channel, item.id, item.prev_id) == ("p-room", "2", "1")
    assert "locmem.Publisher; no proxy was asked" in output


def test_format_restricts_and_stdin_is_read(published, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines\n"))
    call("room", "-", "--format", "ws-message", "--format", "http-stream")
    assert formats(published) == {
        "ws-message": {"content": "two\nlines"},
        "http-stream": {"content": "two\nlines\n"},
    }


@pytest.mark.parametrize(
    ("arguments", "frame"),
    [
        (["x", "--sse"], "data: x\n\n"),
        (["x", "--sse", "bid"], "event: bid\ndata: x\n\n"),
        (["a\nb\r\nc\rd", "--sse"], "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (["", "--sse"], "data: \n\n"),
        (["one\x85two\u2028", "--sse"], "data: one\x85two\u2028\n\n"),
    ],
)
def test_sse_makes_an_event(published, arguments, frame):
    call("room", *arguments)
    assert formats(published)["http-stream"] == {"content": frame}
    assert formats(published)["ws-message"] == {"content": arguments[0]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a,b", "x"], "which Grip-Channel cannot carry"),
        (["room", "x", "--id", ""], "non-empty str"),
        (["room", "x", "--sse", "a\nb"], "is one line"),
        (["room", "x", "--sse", "a\n"], "is one line"),
        (["room", "x", "--sse", "--format", "ws-message"], "--sse is for streams"),
        (["room", "x", "--format", "smoke"], "invalid choice"),
        (["room"], "data"),
    ],
)
def test_what_cannot_be_published_is_refused(published, arguments, words):
    with pytest.raises(CommandError, match=words):
        call(*arguments)
    assert published == []


def test_without_a_proxy_the_cure_is_said(settings):
    settings.GRIP_URL = None
    with pytest.raises(CommandError, match=r"Example: GRIP_URL = 'http://localhost"):
        call("room", "x")


def test_settings_that_are_not_understood_are_said(settings):
    settings.GRIP_URL = "ftp://h"
    with pytest.raises(CommandError, match="begins with http:// or https://"):
        call("room", "x")


def test_each_proxy_that_did_not_take_it_is_named_with_the_reason(site, tmp_path):
    closed = free_port()
    assert not accepts(closed)
    (tmp_path / "two.py").write_text(
        "from seed_settings import *\n"
        f"GRIP_PROXIES = [{{'control_uri': 'http://u:secret@127.0.0.1:{closed}'}}]\n"
    )
    path = f"{site.env['PYTHONPATH']}:{tmp_path}"
    changes = {"DJANGO_SETTINGS_MODULE": "two", "PYTHONPATH": path}
    done = subprocess.run(
        [*MANAGE, "grip_publish", "test", "x"],
        env=environment(site.env | changes),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert f"Not accepted by http://127.0.0.1:{closed}: " in done.stderr
    assert "refused" in done.stderr
    assert f"Accepted by http://127.0.0.1:{site.control_port}." in done.stderr
    assert "secret" not in done.stderr
