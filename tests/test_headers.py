import base64

import pytest

from django_grip import headers


def channel(name, prev_id=None, filters=()):
    return (name, prev_id, filters)


def test_channel_header_joins_names_ids_and_filters():
    assert (
        headers.channel_header(
            [channel("a"), channel("b", "7"), channel("c", None, ["skip-self"])]
        )
        == "a, b; prev-id=7, c; filter=skip-self"
    )


@pytest.mark.parametrize(
    "name",
    ["", "a,b", "a;b", 'a"b', "a b", "a\r\nb", "a\0b", "café", "room; prev-id=0"],
)
def test_s26_s28_names_that_would_split_the_header_are_refused(name):
    with pytest.raises(ValueError, match="channel name"):
        headers.channel_header([channel(name)])


def test_s28_prev_ids_that_would_split_the_header_are_refused():
    with pytest.raises(ValueError, match="Grip-Channel"):
        headers.channel_header([channel("a", "1; filter=x")])


def test_the_twenty_first_channel_is_refused():
    names = [channel(f"c{number}") for number in range(21)]
    assert headers.channel_header(names[:20]).count(",") == 19
    with pytest.raises(ValueError, match="21 channels"):
        headers.channel_header(names)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (":\n\n", ":\\n\\n; format=cstring; timeout=20"),
        ("a\\b;c\r", "a\\\\b\\x3bc\\r; format=cstring; timeout=20"),
        (b"\x01\x02", "AQI=; format=base64; timeout=20"),
        (" x", base64.b64encode(b" x").decode() + "; format=base64; timeout=20"),
    ],
)
def test_keep_alive_survives_the_wire(data, header):
    assert headers.keep_alive_header(data, 20) == header


def test_keep_alive_without_data_or_time_is_refused():
    with pytest.raises(ValueError, match="empty"):
        headers.keep_alive_header("", 20)
    with pytest.raises(ValueError, match="at least 1 second"):
        headers.keep_alive_header("x", 0)


def test_meta_is_quoted_with_both_escapes():
    assert headers.meta_header({"user": 'a\\"b'}) == 'user="a\\\\\\"b"'


@pytest.mark.parametrize("meta", [{"a b": "x"}, {"a": "x\r\ny"}, {"a": 5}, {"": "x"}])
def test_meta_that_would_break_the_header_is_refused(meta):
    with pytest.raises(ValueError, match="expected"):
        headers.meta_header(meta)


@pytest.mark.parametrize("uri", ["", "/a,b", "/a;b", "/a b", "/a>b", "/ü"])
def test_links_that_the_proxy_answers_with_502_are_refused(uri):
    with pytest.raises(ValueError, match="link"):
        headers.link_header(uri)


def test_link_header():
    assert headers.link_header("/next/", 60) == "</next/>; rel=next; timeout=60"


def test_features_and_last_ids_are_read_as_the_proxy_writes_them():
    assert headers.parse_features("status,session, link:next ") == {
        "status",
        "session",
        "link:next",
    }
    assert headers.parse_last("a; last-id=7,b;last-id=9") == {"a": "7", "b": "9"}
    assert headers.parse_last("a, ; last-id=3,b; last-id=") == {}
