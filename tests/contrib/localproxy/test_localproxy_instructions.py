import pytest

from django_grip.contrib.localproxy.documents import parse_document
from django_grip.contrib.localproxy.instructions import (
    Channel,
    Instruction,
    InstructionError,
    KeepAlive,
    Link,
    Replacement,
    parse_instruction,
    split_list,
)


def channels(value):
    return names_of(parse_instruction([("Grip-Channel", value)]))


def names_of(instruction):
    return [channel.name for channel in instruction.channels]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b"', ['"a,b"']),
        ("a;b", ["a"]),
        ('"a;b"', ['"a']),
        (r'"a\"b"', [r'"a\"b"']),
        ('a"b', ['a"b']),
        ('p4"x, p5', ['p4"x, p5']),
        ("p1, p2;filter=skip-self,p3", ["p1", "p2", "p3"]),
        ("a b", ["a b"]),
        ("a%2Cb", ["a%2Cb"]),
        ("a:b/c?d", ["a:b/c?d"]),
        (";filter=skip-self", [""]),
        ("", []),
    ],
)
def test_channels_are_read_as_pushpin_reads_them(value, expected):
    assert channels(value) == expected


def test_repeated_channel_headers_add_up():
    headers = [("Grip-Channel", "a"), ("grip-channel", "b, c")]
    assert names_of(parse_instruction(headers)) == ["a", "b", "c"]


def test_channels_beyond_twenty_are_left_out_and_named():
    names = [f"c{number}" for number in range(25)]
    instruction = parse_instruction([("Grip-Channel", ",".join(names))])
    assert names_of(instruction) == names[:20]
    assert any("20" in feature for feature in instruction.ignored)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (r":\n\n; format=cstring; timeout=20", b":\n\n"),
        (r"a\x3bb\\; format=cstring", b"a;b\\"),
        (r"a\tb; format=cstring", b"ab"),
        ("Ogo=; format=base64", b":\n"),
        ("b'Ogo='; format=base64", b"\x6c\xe8\x28"),
        ("x, y", b"x, y"),
    ],
)
def test_keep_alive_data_are_decoded(value, content):
    assert parse_instruction([("Grip-Keep-Alive", value)]).keep_alive.content == content


def test_keep_alive_timeout_and_mode():
    keep_alive = parse_instruction(
        [("Grip-Keep-Alive", "x; timeout=20; mode=interval")]
    ).keep_alive
    assert (keep_alive.timeout, keep_alive.mode) == (20, "interval")
    keep_alive = parse_instruction([("Grip-Keep-Alive", "x; timeout=0")]).keep_alive
    assert (keep_alive.timeout, keep_alive.mode) == (1, "idle")
    assert parse_instruction([("Grip-Keep-Alive", "x")]).keep_alive.timeout == 55


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Grip-Hold", "Stream"),
        ("Grip-Hold", ""),
        ("Grip-Timeout", "-1"),
        ("Grip-Timeout", "soon"),
        ("Grip-Timeout", ""),
        ("Grip-Keep-Alive", "x; timeout=-1"),
        ("Grip-Keep-Alive", "x; mode=often"),
        ("Grip-Keep-Alive", "x; format=hex"),
        ("Grip-Keep-Alive", "; timeout=3"),
        ("Grip-Keep-Alive", "a\\; format=cstring"),
        ("Grip-Keep-Alive", "a\\xg1; format=cstring"),
        ("Grip-Status", "1000"),
        ("Grip-Status", "ok"),
        ("Grip-Link", "/next; rel=next"),
        ("Grip-Link", "</a;b>; rel=next"),
        ("Grip-Link", "</next>; rel=next; timeout=soon"),
    ],
)
def test_malformed_instruction_is_refused_with_its_value(name, value):
    with pytest.raises(InstructionError, match=r"got|ends"):
        parse_instruction([(name, value)])


def test_compressed_hold_is_refused_and_compressed_answer_is_not():
    compressed = ("Content-Encoding", "gzip")
    assert parse_instruction([compressed]).hold is None
    with pytest.raises(InstructionError, match="Content-Encoding"):
        parse_instruction([compressed, ("Grip-Hold", "stream")])


def test_response_timeout_has_a_default_and_a_minimum():
    assert parse_instruction([]).timeout == 55
    assert parse_instruction([("Grip-Timeout", "0")]).timeout == 5
    assert parse_instruction([("Grip-Timeout", "6")]).timeout == 6


def test_status_has_a_reason_of_its_own_or_the_usual_one():
    assert parse_instruction([("Grip-Status", "304")]).status == (304, "Not Modified")
    assert parse_instruction([("Grip-Status", "201 So Be It")]).status == (
        201,
        "So Be It",
    )


def test_what_is_not_done_yet_is_named():
    header = ("Grip-Channel", "a; filter=skip-self; filter=build-id")
    assert parse_instruction([header]).ignored == ("filter build-id in Grip-Channel",)


def test_channel_has_a_last_id_and_filters():
    header = ("Grip-Channel", 'a; Prev-Id="7"; filter=skip-self;filter=require-sub, b')
    assert parse_instruction([header]).channels == (
        Channel(name="a", prev_id="7", filters=("skip-self", "require-sub")),
        Channel(name="b"),
    )


@pytest.mark.parametrize(
    ("value", "link"),
    [
        ("</next/?a=%2C>; rel=next; timeout=7", Link(uri="/next/?a=%2C", timeout=7)),
        ('<http://x/y>; rel="next"', Link(uri="http://x/y", timeout=120)),
        ("</gone>; rel=gone", None),
        ("</gone>; rel=gone, </next>; rel=next", Link(uri="/next")),
        ("</bare>", None),
    ],
)
def test_next_link_is_found(value, link):
    assert parse_instruction([("Grip-Link", value)]).link == link


def test_meta_are_unquoted():
    header = ("Grip-Set-Meta", r'user="a, \"b\"", "x"=y')
    assert parse_instruction([header]).meta == {"user": 'a, "b"', "x": "y"}


INSTRUCT = [("Content-Type", "application/grip-instruct; charset=utf-8")]


def test_document_says_all_that_headers_say():
    body = b"""{"hold": {"mode": "stream", "timeout": 7, "meta": {"user": "bob"},
        "channels": [{"name": "a,b;c", "prev-id": "7", "filters": ["skip-self"]}],
        "keep-alive": {"content": "x", "content-bin": "Ogo=", "timeout": 20}},
     "response": {"code": 203, "headers": [["X-A", "b"]], "body": "text"}}"""
    headers = [*INSTRUCT, ("Grip-Link", "</next>; rel=next")]
    instruction = parse_document(200, headers, body)
    assert instruction == Instruction(
        hold="stream",
        channels=(Channel(name="a,b;c", prev_id="7", filters=("skip-self",)),),
        timeout=7,
        keep_alive=KeepAlive(content=b":\n", timeout=20, mode="interval"),
        meta={"user": "bob"},
        link=Link(uri="/next"),
        replacement=Replacement(
            code=203,
            reason="Non-Authoritative Information",
            headers=(("X-A", "b"),),
            body=b"text",
        ),
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (201, b"{}"),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"hold": {}}'),
        (200, b'{"hold": {"channels": [{"name": null}]}}'),
        (200, b'{"hold": {"channels": [], "mode": "Stream"}}'),
        (200, b'{"hold": {"channels": [], "timeout": -1}}'),
        (200, b'{"response": {"body": null}}'),
        (200, b'{"response": {"headers": [["a"]]}}'),
    ],
)
def test_malformed_document_is_refused(status, body):
    with pytest.raises(InstructionError):
        parse_document(status, INSTRUCT, body)


def test_list_split_leaves_out_what_is_empty():
    assert split_list(' a ,, b,"c,d" ,') == ["a", "b", '"c,d"']
