"""What clients see of a GRIP proxy, as plain functions from a Stage to a transcript.

A transcript is a list of JSON values: what the client received, in order, and what
the origin was asked where that is the point.
"""

import json
import threading
import time

from gripcontrol import (
    WebSocketEvent,
    decode_websocket_events,
    encode_websocket_events,
)
from origin import Answer
from stage import TEXT, message, stream_item

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


CLOSE = {"formats": {"http-stream": {"action": "close"}}}
HINT = {"formats": {"http-stream": {"action": "hint"}}}


def on(channel, item, **fields):
    return {"channel": channel, **item, **fields}


# Streams


@scenario
def stream_hold(stage):
    stage.hold("s", ("X-Kept", "yes"))
    client = stage.open("s")
    answer = stage.publish(("s", "one\n"), ("other", "no\n"), ("s", "two: ä\n"))
    client.until("ä\n")
    return [client.head(), client.seen, answer]


@scenario
def two_channels_in_one_header(stage):
    stage.hold("s", channels=f"{stage.channel('a')}, {stage.channel('b')}")
    client = stage.open("s")
    stage.publish(("c", "no\n"), ("b", "from b\n"), ("a", "from a\n"))
    return [client.until("from a\n")]


@scenario
def chunked_body_then_items(stage):
    stage.hold("s", body=[b"one ", b"two ", b"ready\n"])
    client = stage.open("s")
    stage.publish(("s", "item\n"))
    return [client.until("item\n")]


@scenario
def keep_alive_idle_cstring(stage):
    stage.hold("s", ("Grip-Keep-Alive", ":\\n\\x3b\\n; format=cstring; timeout=1"))
    client = stage.open("s")
    client.until(":\n;\n:\n;\n")
    return [client.seen[:14]]


@scenario
def keep_alive_interval_base64(stage):
    stage.hold(
        "s", ("Grip-Keep-Alive", "Ogo=; format=base64; timeout=1; mode=interval")
    )
    client = stage.open("s")
    stage.publish(("s", "item\n"))
    client.until(":\n")
    client.until("item\n")
    return [sorted({line for line in client.seen.splitlines() if line})]


@scenario
def stream_without_channel(stage):
    stage.script(
        "s",
        Answer([*TEXT, ("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; timeout=1")]),
    )
    client = stage.request("s")
    return [client.until("x")[:1]]


@scenario
def duplicate_id(stage):
    stage.hold("s")
    client = stage.open("s")
    stage.publish(("s", "one\n", "1"))
    stage.publish(("s", "again\n", "1"), ("s", "two\n", "2"))
    return [client.until("two\n")]


@scenario
def bad_item_spoils_the_batch(stage):
    stage.hold("s")
    client = stage.open("s")
    status, text = stage.publish(("s", "good\n"), {"channel": "s"})
    null_id = {**stream_item("s", "null\n"), "id": None}
    second, _ = stage.publish(("s", "good\n"), null_id)
    stage.publish(("s", "later\n"))
    return [status, bool(text.strip()), second, client.until("later\n")]


@scenario
def publish_close(stage):
    stage.hold("s")
    client = stage.open("s")
    stage.publish(("s", "last\n"), on("s", CLOSE), ("s", "too late\n"))
    return [client.rest()]


@scenario
def post_may_be_held(stage):
    stage.hold("s", status=500)
    client = stage.open("s", method="POST", body="payload")
    stage.publish(("s", "item\n"))
    (request,) = stage.asked("s")
    seen = client.until("item\n")
    return [client.head(), seen, request.method, request.body.decode()]


@scenario
def skip_self(stage):
    stage.hold(
        "s",
        ("Grip-Set-Meta", 'user="ann"'),
        channels=f"{stage.channel('s')}; filter=skip-self",
    )
    client = stage.open("s")
    stage.publish(
        stream_item("s", "own\n", meta={"sender": "ann"}),
        stream_item("s", "other\n", meta={"sender": "bob"}),
    )
    return [client.until("other\n")]


@scenario
def skip_users_and_require_sub(stage):
    filters = "; filter=skip-users; filter=require-sub"
    stage.hold(
        "s",
        ("Grip-Set-Meta", "user=ann"),
        channels=f"{stage.channel('s')}{filters}",
    )
    client = stage.open("s")
    stage.publish(
        stream_item("s", "skipped\n", meta={"skip_users": "bob, ann"}),
        stream_item("s", "elsewhere\n", meta={"require_sub": stage.channel("t")}),
        stream_item("s", "here\n", meta={"require_sub": stage.channel("s")}),
    )
    return [client.until("here\n")]


# Sequences and links


def continued(stage, *headers, body=b"", channels=None):
    channels = stage.channel("s") if channels is None else channels
    held = [("Grip-Hold", "stream"), ("Grip-Channel", channels), stage.link("next")]
    return Answer([*TEXT, *held, *headers], body)


def last_of(request):
    return sorted(request.headers.get_all("Grip-Last", []))


def sequenced(stage, bodies):
    """A hold after id 0 whose link answers with `bodies`: pairs of text and last id."""
    stage.hold("s", stage.link("next"), channels=f"{stage.channel('s')}; prev-id=0")

    def following(request):
        text, last_id = bodies[min(request.number, len(bodies)) - 1]
        channels = f"{stage.channel('s')}; prev-id={last_id}"
        return continued(stage, body=text.encode(), channels=channels)

    stage.script("next", following)


@scenario
def items_out_of_order(stage):
    sequenced(stage, [("up to date\n", "0")])
    client = stage.open("s")
    client.until("up to date\n")
    stage.publish(stream_item("s", "1\n", "1", "0"))
    for number in (4, 3, 2):
        stage.publish(stream_item("s", f"{number}\n", f"{number}", f"{number - 1}"))
    stage.publish(stream_item("s", "2 again\n", "2", "1"))
    stage.publish(stream_item("s", "5\n", "5", "4"))
    client.until("5\n")
    return [client.seen, [last_of(each) for each in stage.asked("next")]]


@scenario
def gap_is_healed_by_the_link(stage):
    sequenced(stage, [("up to date\n", "0"), ("2\n3\n", "3")])
    client = stage.open("s")
    client.until("up to date\n")
    stage.publish(stream_item("s", "1\n", "1", "0"))
    client.until("1\n")
    stage.publish(stream_item("s", "3 itself\n", "3", "2"))
    client.until("3\n")
    stage.asked("next", 2)
    stage.publish(stream_item("s", "4\n", "4", "3"))
    client.until("4\n")
    return [client.seen, [last_of(each) for each in stage.asked("next", 2)]]


@scenario
def item_without_id_is_fetched(stage):
    sequenced(stage, [("up to date\n", "0"), ("by the link\n", "1")])
    client = stage.open("s")
    client.until("up to date\n")
    stage.publish(("s", "not itself\n"))
    client.until("by the link\n")
    stage.publish(stream_item("s", "2\n", "2", "1"))
    client.until("2\n")
    return [client.seen, [last_of(each) for each in stage.asked("next", 2)]]


@scenario
def late_hold_is_healed_at_once(stage):
    sequenced(stage, [("up to date\n", "0"), ("1\n", "1")])
    first = stage.open("s")
    first.until("up to date\n")
    stage.publish(stream_item("s", "1\n", "1", "0"))
    first.until("1\n")
    late = stage.open("s")
    late.until("1\n")
    stage.publish(stream_item("s", "2\n", "2", "1"))
    late.until("2\n")
    return [first.until("2\n"), late.seen]


@scenario
def sequence_without_link_closes(stage):
    stage.hold("s", channels=f"{stage.channel('s')}; prev-id=0")
    return [stage.request("s").rest()]


@scenario
def hint_fetches_the_link(stage):
    stage.hold("s", stage.link("next"))

    def following(request):
        return continued(stage, body=f"page {request.number}\n".encode())

    stage.script("next", following)
    client = stage.open("s")
    client.until("page 1\n")
    stage.publish(on("s", HINT))
    client.until("page 2\n")
    stage.publish(("s", "item\n"))
    return [client.until("item\n")]


@scenario
def chain_of_pages(stage):
    stage.script("s", Answer([*TEXT, stage.link("next")], b"ready\n"))

    def following(request):
        if request.number < 3:
            body = f"page {request.number}\n".encode()
            return Answer([*TEXT, stage.link("next")], body)
        held = [("Grip-Hold", "stream"), ("Grip-Channel", stage.channel("s"))]
        return Answer([*TEXT, *held], b"held\n")

    stage.script("next", following)
    client = stage.open("s")
    client.until("held\n")
    stage.publish(("s", "item\n"))
    return [client.head(), client.until("item\n"), len(stage.asked("next"))]


@scenario
def link_answer_ends_the_stream(stage):
    stage.hold("s", stage.link("next"))
    stage.script("next", Answer(TEXT, b"the end\n"))
    return [stage.request("s").rest()]


@scenario
def link_timeout_fetches_again(stage):
    stage.hold("s", stage.link("next", "; timeout=1"))

    def following(request):
        body = f"page {request.number}\n".encode()
        if request.number == 3:
            return Answer(TEXT, body)
        held = [("Grip-Hold", "stream"), ("Grip-Channel", stage.channel("s"))]
        return Answer([*TEXT, *held, stage.link("next", "; timeout=1")], body)

    stage.script("next", following)
    return [stage.request("s").rest()]


@scenario
def failing_link_is_tried_again(stage):
    stage.hold("s", stage.link("next"))

    def following(request):
        if request.number == 1:
            return Answer(TEXT, b"an error page", 503)
        return continued(stage, body=b"again\n")

    stage.script("next", following)
    client = stage.open("s")
    client.until("again\n")
    stage.publish(("s", "item\n"))
    return [client.until("item\n"), len(stage.asked("next", 2))]


@scenario
def link_fetch_is_shared(stage):
    """Twenty clients are in the first fetch, which takes as long as they need."""
    stage.hold("s", stage.link("next"))
    all_here = threading.Event()

    def following(request):
        assert all_here.wait(15)
        return continued(stage, body=b"shared\n")

    stage.script("next", following)
    clients = [stage.open("s") for _ in range(20)]
    stage.asked("next")
    stage.publish(("s", "meanwhile\n"))
    all_here.set()
    texts = {client.until("meanwhile\n") for client in clients}
    return [sorted(texts), len(stage.asked("next"))]


@scenario
def link_fetch_has_no_cookies(stage):
    sequenced(stage, [("up to date\n", "0")])
    headers = {
        "Cookie": "a=1",
        "Authorization": "Basic xyz",
        "Last-Event-ID": "5",
        "Grip-Last": "forged; last-id=9",
    }
    client = stage.open("s", headers=headers.items())
    client.until("up to date\n")
    (first,), (link,) = stage.asked("s"), stage.asked("next")
    names = [*headers, "Host", "Grip-Sig", "Grip-Feature"]
    return [
        [name for name in names if name in first.headers],
        [name for name in names if name in link.headers],
        last_of(link),
    ]


# Responses


def poll(stage, *headers, body=b"held", status=200, channels=None):
    channels = stage.channel("p") if channels is None else channels
    held = [("Grip-Hold", "response"), ("Grip-Channel", channels)]
    stage.script("p", Answer([*TEXT, *held, *headers], body, status))


def response_item(channel, **fields):
    return {"channel": channel, "formats": {"http-response": fields}}


@scenario
def response_hold_by_publish(stage):
    poll(stage, ("ETag", '"1"'), ("X-Held", "yes"))
    client = stage.request("p")
    item = response_item(
        "p", code=202, headers={"ETag": '"2"', "X-P": "p"}, body="news"
    )
    stage.publish_until(item, client.is_answered)
    return [client.whole()]


@scenario
def response_hold_by_timeout(stage):
    poll(stage, ("Grip-Timeout", "0"), ("X-Held", "yes"))
    return [stage.request("p").whole()]


@scenario
def response_hold_304(stage):
    poll(stage, ("Grip-Timeout", "5"), ("Grip-Status", "304"), ("ETag", '"1"'))
    return [stage.request("p").whole()]


@scenario
def stale_poll_is_asked_again(stage):
    """The first poll is after id 0, the second, after the replay, after id 1."""

    def answer(request):
        last_ids = last_of(request)
        if request.number > 1 and request.method == "POST":
            body = f"{last_ids} {request.body.decode()}".encode()
            return Answer([*TEXT, ("X-N", "replayed")], body)
        channels = f"{stage.channel('p')}; prev-id=0"
        return Answer(
            [*TEXT, ("Grip-Hold", "response"), ("Grip-Channel", channels)], b"held"
        )

    stage.script("p", answer)
    client = stage.request("p", method="POST", body="payload")
    return [client.whole()]


@scenario
def hint_replays_a_poll(stage):
    def answer(request):
        if "Cookie" in request.headers and request.number > 1:
            return Answer(TEXT, request.headers["Cookie"].encode())
        held = [("Grip-Hold", "response"), ("Grip-Channel", stage.channel("p"))]
        return Answer([*TEXT, *held], b"held")

    stage.script("p", answer)
    client = stage.request("p", headers=[("Cookie", "a=1")])
    hint = response_item("p", action="hint")
    stage.publish_until(hint, client.is_answered)
    return [client.whole()]


# Plain answers


@scenario
def malformed_instruction(stage):
    statuses = []
    for number, header in enumerate(
        [
            ("Grip-Hold", "Stream"),
            ("Grip-Timeout", "soon"),
            ("Grip-Status", "9999"),
            ("Grip-Link", "/next; rel=next"),
            ("Content-Type", "application/grip-instruct"),
        ]
    ):
        stage.script(f"m{number}", Answer([header], b"secret"))
        client = stage.request(f"m{number}")
        statuses.append([client.response.status, "secret" in client.rest()])
    return statuses


@scenario
def grip_expose_headers(stage):
    headers = [("Grip-Expose-Headers", "X-A"), ("X-A", "1"), ("X-B", "2")]
    stage.script("s", Answer([*TEXT, *headers], b"body"))
    return [stage.request("s").whole()]


@scenario
def grip_status_with_a_reason(stage):
    stage.script("s", Answer([*TEXT, ("Grip-Status", "299 Fine")], b"body"))
    return [stage.request("s").whole()]


@scenario
def head_request(stage):
    stage.script("s", Answer([*TEXT, ("X-A", "1")], b"body"))
    client = stage.request("s", "HEAD")
    return [client.whole(), stage.asked("s")[0].method]


@scenario
def post_is_forwarded(stage):
    def answer(request):
        return Answer(TEXT, request.target.encode() + b" " + request.body, 201)

    stage.script("s", answer)
    return [stage.request("s", "POST", body="payload").whole()]


@scenario
def instruct_document(stage):
    body = f"""{{"hold": {{"mode": "stream", "channels": [{{"name":
        "{stage.channel("s")}"}}]}}, "response": {{"code": 203, "reason": "So",
        "headers": {{"X-A": "b", "Content-Type": "text/plain"}},
        "body-bin": "cmVhZHkK"}}}}"""
    headers = [("Content-Type", "application/grip-instruct"), ("X-Gone", "yes")]
    stage.script("s", Answer(headers, body.encode()))
    client = stage.open("s")
    stage.publish(("s", "item\n"))
    return [client.head(), client.until("item\n")]


# WebSockets

EVENTS = ("Content-Type", "application/websocket-events")
GRIP = ("Sec-WebSocket-Extensions", "grip")


def serve(stage, react, *headers):
    """Script "ws": accept with `headers`, then answer each event by `react`.

    `react` gets an event and its request and returns events, each a pair.
    """

    def answer(request):
        headers_now, out = list(headers) if request.number == 1 else [], []
        for event in events_of(request):
            for each in react(event, request) or ():
                if each[0] == "header":
                    headers_now.append(each[1:])
                else:
                    out.append(each)
        events = [
            WebSocketEvent(kind, *(text.encode("latin-1") for text in texts))
            for kind, *texts in out
        ]
        return Answer([EVENTS, *headers_now], encode_websocket_events(events))

    stage.script("ws", answer)


def echo(event, request):
    """Accept, echo, and close with whoever closes."""
    kind, content = event
    if kind == "OPEN":
        return [("OPEN",)]
    if kind in ("TEXT", "BINARY"):
        return [(kind, "m:" + content)]
    if kind == "PING":
        return [("PONG", content)]
    if kind == "CLOSE":
        return [("CLOSE", content) if content else ("CLOSE",)]
    return []


def control(**fields):
    return ("TEXT", "c:" + json.dumps(fields))


def events_of(request):
    """The events in a request, as pairs of type and Latin-1 text."""
    return [
        (event.type, (event.content or b"").decode("latin-1"))
        for event in decode_websocket_events(request.body)
    ]


def told(stage, count):
    """The events of each of the first requests about "ws"."""
    return [[list(each) for each in events_of(r)] for r in stage.asked("ws", count)]


@scenario
def ws_open_and_echo(stage):
    serve(stage, echo, GRIP, ("Set-Cookie", "a=1"))
    forged = [("Meta-User", "admin"), ("Connection-Id", "forged"), ("Cookie", "c=1")]
    client = stage.websocket("ws", headers=forged)
    client.send("text", "hello")
    first = client.next()
    client.send("ping", "x")
    second = client.next()
    requests = stage.asked("ws", 2)
    ids = {request.headers["Connection-Id"] for request in requests}
    names = ["Cookie", "Accept", "Sec-WebSocket-Extensions", "Upgrade", "Meta-User"]
    return [
        client.head(),
        first,
        second,
        len(ids),
        "forged" in ids,
        [requests[1].headers.get(name) for name in names],
        told(stage, 3),
    ]


@scenario
def ws_binary(stage):
    serve(stage, echo, GRIP)
    client = stage.websocket("ws")
    client.send("binary", b"\x00\xff\r\n")
    return [client.next(), told(stage, 2)]


@scenario
def ws_only_prefixed_messages_are_relayed(stage):
    def react(event, request):
        if event[0] == "TEXT":
            return [("TEXT", "dropped"), ("TEXT", "m:kept")]
        return echo(event, request)

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    client.send("text", "x")
    return [client.next()]


@scenario
def ws_message_prefix_and_no_extension(stage):
    def react(event, request):
        if event[0] == "TEXT":
            return [("TEXT", "c:{}"), ("TEXT", "m:kept"), ("TEXT", "end")]
        return echo(event, request)

    found = []
    for headers in ([("Sec-WebSocket-Extensions", 'grip; message-prefix=""')], []):
        stage = stage.fresh()
        serve(stage, react, *headers)
        client = stage.websocket("ws")
        client.send("text", "x")
        frames = [client.next()]
        while frames[-1] != ["text", "end"]:
            frames.append(client.next())
        found.append(frames)
        client.close()
    return found


@scenario
def ws_subscribe_and_publish(stage):
    def react(event, request):
        if event[0] == "OPEN":
            subscribe = control(type="subscribe", channel=stage.channel("c"))
            return [("OPEN",), subscribe, ("TEXT", "m:welcome")]
        return echo(event, request)

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    welcome = client.next()
    client.subscribed(stage, "c")
    stage.publish(
        message("c", content="text"),
        message("other", content="no"),
        message("c", **{"content-bin": "AP8="}),
        message("c", action="close", code=4001, reason="bye"),
    )
    frames = [client.next() for _ in range(3)]
    client.send_close(4001, "bye")
    return [welcome, *frames, client.next(), told(stage, 2)]


@scenario
def ws_unsubscribe_and_filter(stage):
    def react(event, request):
        if event[0] == "OPEN":
            return [
                ("OPEN",),
                control(type="set-meta", name="user", value="ann"),
                control(
                    type="subscribe",
                    channel=stage.channel("c"),
                    filters=["skip-self"],
                ),
                control(type="subscribe", channel=stage.channel("d")),
            ]
        if event[0] == "TEXT":
            unsubscribe = control(type="unsubscribe", channel=stage.channel("c"))
            subscribe = control(type="subscribe", channel=stage.channel("e"))
            return [unsubscribe, subscribe, ("TEXT", "m:done")]
        return echo(event, request)

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    client.subscribed(stage, "d")
    own = {**message("c", content="own"), "meta": {"sender": "ann"}}
    stage.publish(own, message("c", content="other"))
    frames = [client.next()]
    client.send("text", "x")
    frames.append(client.next())
    client.subscribed(stage, "e")
    stage.publish(message("c", content="gone"), message("d", content="still"))
    return [*frames, client.next()]


@scenario
def ws_subprotocol(stage):
    serve(stage, echo, GRIP, ("Sec-WebSocket-Protocol", "chat"))
    client = stage.websocket(
        "ws", headers=[("Sec-WebSocket-Protocol", "chat, superchat")]
    )
    (request,) = stage.asked("ws")
    return [client.head(), request.headers["Sec-WebSocket-Protocol"]]


@scenario
def ws_rejected(stage):
    stage.script("ws", Answer([*TEXT, ("X-Why", "because")], b"not you", 403))
    client = stage.websocket("ws")
    return [client.head(), client.body()]


@scenario
def ws_meta(stage):
    def react(event, request):
        if event[0] == "OPEN":
            return [("OPEN",), ("header", "Set-Meta-User", "ann")]
        if event == ("TEXT", "delete"):
            return [("header", "Set-Meta-User", "")]
        meta = request.headers.get("Meta-User")
        return [("TEXT", f"m:{meta}")]

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    client.send("text", "one")
    frames = [client.next()]
    client.send("text", "delete")
    stage.asked("ws", 3)
    client.send("text", "two")
    return [*frames, client.next()]


@scenario
def ws_keep_alive_message(stage):
    def react(event, request):
        return [
            ("OPEN",),
            control(
                **{"type": "keep-alive", "content": "alive", "message-type": "ping"},
                timeout=1,
            ),
        ]

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    return [client.next(), client.next()]


@scenario
def ws_client_closes(stage):
    serve(stage, echo, GRIP)
    client = stage.websocket("ws")
    client.send_close(4000, "cya")
    return [client.next(), client.next(), told(stage, 2)]


@scenario
def ws_server_closes(stage):
    def react(event, request):
        if event[0] == "TEXT":
            return [("TEXT", "m:last"), ("CLOSE", "\x0f\xa2over")]
        return echo(event, request)

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    client.send("text", "x")
    frames = [client.next(), client.next()]
    client.send_close(4002)
    return [*frames, client.next(), told(stage, 3)]


@scenario
def ws_detach(stage):
    def react(event, request):
        if event[0] == "OPEN":
            return [("OPEN",), control(type="subscribe", channel=stage.channel("c"))]
        if event[0] == "TEXT":
            return [control(type="detach")]
        return echo(event, request)

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    client.subscribed(stage, "c")
    client.send("text", "x")
    stage.asked("ws", 3)
    client.send("text", "discarded")
    stage.publish(message("c", content="still here"))
    return [client.next(), told(stage, 3)]


@scenario
def ws_client_vanishes(stage):
    serve(stage, echo, GRIP)
    client = stage.websocket("ws")
    client.send("text", "x")
    client.next()
    client.close()
    return [told(stage, 3)]


@scenario
def ws_origin_error_drops_the_client(stage):
    def react(event, request):
        if event[0] == "OPEN":
            return [("OPEN",)]
        raise RuntimeError("The scripted fault.")

    def answer(request):
        if request.number > 1:
            return Answer(TEXT, b"broken", 500)
        return Answer([EVENTS, GRIP], b"OPEN\r\n")

    stage.script("ws", answer)
    client = stage.websocket("ws")
    client.send("text", "x")
    return [client.next()]


@scenario
def ws_forged_events_are_refused(stage):
    stage.script("ws", Answer(TEXT, b"reached"))
    client = stage.request(
        "ws", "POST", headers=[EVENTS, ("Meta-User", "admin")], body="OPEN\r\n"
    )
    return [client.response.status, "reached" in client.rest()]


@scenario
def ws_one_request_at_a_time(stage):
    """Many quick messages arrive in order, and never by two requests at once."""
    under_way = threading.Lock()
    overlaps = []

    def react(event, request):
        if not under_way.acquire(blocking=False):
            overlaps.append(event)
            return []
        try:
            # Long enough for a second request to come, were one sent.
            time.sleep(0.02)
            return echo(event, request)
        finally:
            under_way.release()

    serve(stage, react, GRIP)
    client = stage.websocket("ws")
    for number in range(20):
        client.send("text", f"{number}")
    client.send("text", "last")
    frames = [client.next() for _ in range(21)]
    return [[text for _, text in frames], overlaps]
