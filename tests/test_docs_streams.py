"""The pages on streams for people, done: one project of all their snippets, served."""

import asyncio
import json
import re
import sys
from base64 import b64encode
from importlib.util import find_spec

import aiohttp
import pytest
from django.apps import apps
from django.utils.module_loading import import_string

from clients import EventStream, request
from servers import Process, wait_until
from test_docs import Project, blocks

HAS_CELERY = find_spec("celery") is not None

PAGES = [
    "own-stream",
    "tenants",
    "staff-view",
    "testing",
    "migrate-from-django-grip",
    "migrate-from-django-eventstream",
    "migrate-from-channels",
]
if HAS_CELERY:
    PAGES.append("celery")

GROWING = ("models.py", "serializers.py", "views.py")
"""Files that several pages add to."""

LEFT_OUT = ("# tests/settings.py", "# site_/settings.py")

ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat")
"""A worker that does not look for others when it starts."""

SETTINGS = """# site_/settings.py
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": BASE_DIR / "queue",
    "data_folder_out": BASE_DIR / "queue",
    "control_folder": BASE_DIR / "control",
}
"""

URLS = """# site_/urls.py
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from shop import deeds, news, rooms
from site_ import MODULES


def enter(request, name):
    login(request, User.objects.get(username=name))
    return HttpResponse()


def leave(request):
    logout(request)
    return HttpResponse()


def do(request, deed):
    getattr(deeds, deed)()
    return HttpResponse()


urlpatterns = [
    path("do/<deed>/", do),
    path("enter/<name>/", enter),
    path("leave/", leave),
    path("by-hand/room/", rooms.room),
    path("by-hand/poll/", rooms.poll),
    path("by-hand/socket/", rooms.socket),
    path("news/", news.news),
]
for urls in (MODULES):
    urlpatterns += urls.urlpatterns
"""

BY_HAND = """# shop/test_by_hand.py
from django.test import SimpleTestCase, TestCase
from django_grip.test import GripClient, assert_held, capture_published
from shop import receivers
from shop.models import Article


class RoomTest(SimpleTestCase):
    client_class = GripClient

    def test_holds(self):
        assert_held(self.client.get("/by-hand/room/"), ["room"])
        assert_held(self.client.get("/by-hand/poll/"), ["room"], hold="response")

    def test_the_socket_says_it_to_all(self):
        with capture_published() as published:
            answer = self.client.websocket(
                "/by-hand/socket/", ("OPEN", None), ("TEXT", "hello")
            )
        self.assertEqual(answer.status_code, 200)
        self.assertEqual(published[0].channel, "room")
        self.assertEqual(len(published[0].formats), 3)


class ReceiverTest(TestCase):
    def test_it_tells_before_the_commit(self):
        with capture_published() as published:
            Article.objects.create(title="a")
        self.assertEqual([item.channel for item in published], ["articles"])
"""

DEEDS = """# shop/deeds.py
from django.contrib.auth.models import User
from django_grip.contrib.realtime import channel_for, revoke
from shop.accounts import sign_out_everywhere
from shop.members import take_out
from shop.models import Board, Lot, Order, Room, Tenant
from shop.news import announce


def user(name):
    return User.objects.get(username=name)


def people():
    for name in ("ann", "bob", "eve"):
        User.objects.create_user(name, password=name, is_staff=name == "eve")
    ann, bob = user("ann"), user("bob")
    for pk, members in ((7, (ann, bob)), (8, (bob,)), (9, (bob,))):
        Tenant.objects.create(pk=pk).members.set(members)
    Room.objects.create(pk=7).members.set((ann, bob))
    Board.objects.create(pk=7).members.set((ann,))


def give_away():
    Order.objects.filter(customer=user("ann")).update(customer=user("bob"))


def sign_out():
    sign_out_everywhere(user("ann"))


def leave_tenant():
    take_out(Tenant.objects.get(pk=9), user("bob"))


def auction():
    Lot.objects.create(reserve=4711)


def revoke_staff():
    revoke(target=channel_for(Lot, audience="staff"))


def tell_news():
    announce("hello")


def buy():
    from shop.buying import buy

    buy(user("ann"), 5, client="tab-7")
"""


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """A project of the blocks of the pages, with the event log; served."""
    project = Project(tmp_path_factory.mktemp("streams"))
    project.run("django-admin startproject site_ .")
    project.write("", instead="shop/__init__.py")
    for page in ("docs/tutorial/live-list.md", "docs/how-to/event-log.md"):
        project.write(blocks(page, "python")[0])
    project.write(SETTINGS)
    routed = []
    for page in PAGES:
        for block in blocks(f"docs/how-to/{page}.md", "python"):
            if block.startswith("# site_/urls.py"):
                routed.append(f"urls_of_{page.replace('-', '_')}")
                project.write(block, instead=f"site_/{routed[-1]}.py")
            elif not block.startswith(LEFT_OUT):
                project.write(block, append=GROWING)
    project.write(URLS.replace("MODULES", ", ".join(routed)))
    project.write(BY_HAND)
    project.write(DEEDS)
    project.run("python manage.py migrate --run-syncdb")
    server = project.serve()
    do(project, "people")
    yield project
    assert server.stop() == 0


def do(project, deed):
    """Have the site do what shop/deeds.py calls so."""
    answer = request(f"{project.url}/do/{deed}/")
    assert answer.status == 200, answer.body


def as_(name):
    """The headers of a client that says its name with each request."""
    return {"Authorization": f"Basic {b64encode(f'{name}:{name}'.encode()).decode()}"}


def logged_in(project, name):
    """The headers of a browser that has logged in."""
    answer = request(f"{project.url}/enter/{name}/")
    cookies = [each.partition(";")[0] for each in answer.headers.get_all("Set-Cookie")]
    return {"Cookie": "; ".join(cookies)}


def post(url, name, json_body):
    """The JSON of a row that this user makes."""
    answer = request(url, "POST", json_body, headers=as_(name))
    assert answer.status == 201, answer.body
    return answer.json()


def test_the_pages_pass_their_own_tests(streams):
    streams.run("python manage.py check --fail-level WARNING --database default")
    output = streams.run("python manage.py test shop")
    assert f"Ran {12 if HAS_CELERY else 11} tests" in output


def test_the_publisher_of_the_page_on_testing_is_there():
    *_, settings = blocks("docs/how-to/testing.md", "python")
    namespace = {}
    exec(settings, namespace)
    assert import_string(namespace["GRIP_PUBLISHER"])


# Own streams.


def test_the_stream_of_the_page_on_own_streams_tells_the_own_orders(streams):
    url = f"{streams.url}/orders/"
    with EventStream(f"{url}stream/", as_("ann")) as stream:
        assert stream.next().envelope["gapless"] is True
        others = post(url, "bob", {"total": 5})
        own = post(url, "ann", {"total": 5})
        event = stream.next()
        assert (event.event, event.envelope["pk"]) == ("create", own["id"])
        do(streams, "give_away")
        left = stream.next().envelope
        assert (left["op"], left["reason"]) == ("delete", "leave")
    of_another = f"{url}{others['id']}/stream/"
    assert request(of_another, headers=as_("ann")).status == 404


def test_the_stream_of_the_page_on_own_streams_ends_with_the_login(streams):
    headers = logged_in(streams, "ann")
    url = f"{streams.url}/orders/stream/"
    with EventStream(url, headers) as stream, EventStream(url, as_("bob")) as other:
        assert stream.next().event == other.next().event == "ready"
        assert request(f"{streams.url}/leave/", headers=headers).status == 200
        assert stream.ended.wait(20)
        assert not other.ended.is_set()
    assert request(url, headers=headers).status == 403


def test_all_of_a_user_ends_as_the_page_on_own_streams_says(streams):
    with EventStream(f"{streams.url}/orders/stream/", as_("ann")) as stream:
        assert stream.next().event == "ready"
        do(streams, "sign_out")
        assert stream.ended.wait(20)


# Tenants.


def test_the_streams_of_the_page_on_tenants_are_apart(streams):
    seven, eight = (f"{streams.url}/tenants/{pk}/invoices/" for pk in (7, 8))
    assert request(f"{eight}stream/", headers=as_("ann")).status == 403
    with EventStream(f"{seven}stream/", as_("ann")) as stream:
        assert stream.next().envelope["channel"] == "shop.invoice~tenant.7"
        post(eight, "bob", {"number": "B-1"})
        post(seven, "bob", {"number": "A-1"})
        assert stream.next().envelope["data"]["number"] == "A-1"


def test_who_is_taken_out_of_a_tenant_of_the_page_hears_no_more(streams):
    url = f"{streams.url}/tenants/9/invoices/stream/"
    with EventStream(url, as_("bob")) as stream:
        assert stream.next().event == "ready"
        do(streams, "leave_tenant")
        assert stream.ended.wait(20)
    assert request(url, headers=as_("bob")).status == 403


# Staff.


def test_only_staff_of_the_page_get_the_reserve(streams):
    url = f"{streams.url}/lots/stream/"
    with EventStream(url) as public, EventStream(url, as_("eve")) as staff:
        assert public.next().envelope["channel"] == "shop.lot~as.public"
        assert staff.next().envelope["channel"] == "shop.lot~as.staff"
        do(streams, "auction")
        assert staff.next().envelope["data"]["reserve"] == 4711
        assert "reserve" not in public.next().envelope["data"]
        do(streams, "revoke_staff")
        assert staff.ended.wait(20)
        assert not public.ended.is_set()


# Celery.


@pytest.mark.skipif(not HAS_CELERY, reason="celery is not installed")
def test_a_worker_tells_what_the_page_on_celery_says(streams):
    for name in ("queue", "control"):
        (streams.directory / name).mkdir()
    python = [sys.executable, "-m", "celery", "--app=site_", "worker"]
    worker = Process(
        [*python, "--pool=prefork", "--concurrency=1", "--loglevel=INFO", *ALONE],
        streams.directory / "worker.log",
        streams.environment,
        cwd=streams.directory,
    )
    try:
        wait_until(lambda: " ready." in worker.log.read_text(), "the worker is ready")
        with EventStream(f"{streams.url}/orders/stream/", as_("ann")) as stream:
            assert stream.next().event == "ready"
            do(streams, "buy")
            events = [stream.next(20).envelope for _ in range(4)]
        assert [(event["op"], event.get("origin")) for event in events] == [
            ("create", "tab-7"),
            ("packing", None),
            ("packing", None),
            ("update", "tab-7"),
        ]
        assert events[2]["data"] == {"percent": 100}
    finally:
        assert worker.stop() == 0


# Those who come from elsewhere.


def test_the_app_of_the_page_on_django_grip_is_the_one():
    _, settings, *_ = blocks("docs/how-to/migrate-from-django-grip.md", "python")
    namespace = {"INSTALLED_APPS": []}
    exec(settings, namespace)
    assert [apps.is_installed(name) for name in namespace["INSTALLED_APPS"]] == [True]


def test_the_names_of_the_page_on_django_grip_are_there():
    page = "docs/how-to/migrate-from-django-grip.md"
    code = "\n".join(blocks(page, "python"))
    names = re.findall(r"^from (django_grip|gripcontrol) import (.*)$", code, re.M)
    assert len(names) >= 4
    for module, imported in names:
        for name in imported.split(", "):
            assert import_string(f"{module}.{name}")


def test_the_room_of_the_page_on_django_eventstream_is_streamed(streams):
    url = f"{streams.url}/rooms/7/messages/"
    assert request(f"{url}stream/", headers=as_("eve")).status == 403
    with EventStream(f"{url}stream/", as_("ann")) as stream:
        assert stream.next().event == "ready"
        post(url, "bob", {"text": "hello"})
        assert stream.next().envelope["data"]["text"] == "hello"


def test_the_channel_of_the_page_on_django_eventstream_is_streamed(streams):
    url = f"{streams.url}/news/"
    assert request(url).status == 302
    with EventStream(url, logged_in(streams, "eve")) as stream:
        assert stream.next().envelope["gapless"] is True
        do(streams, "tell_news")
        event = stream.next()
        assert (event.event, event.envelope["data"]) == (
            "announcement",
            {"text": "hello"},
        )


def test_the_socket_of_the_page_on_channels_has_many_streams(streams):
    (operation,) = blocks("docs/how-to/migrate-from-channels.md", "json")
    url = f"{streams.url}/boards/7/cards/"

    async def listen():
        async with (
            aiohttp.ClientSession(headers=as_("ann")) as session,
            session.ws_connect(f"{streams.url}/realtime/") as socket,
        ):
            await socket.send_str(operation)
            subscribed = (await told(socket))[0]
            assert (subscribed["type"], subscribed["id"]) == ("subscribed", "a")
            other = json.loads(operation) | {
                "id": "b",
                "url": "/boards/8/cards/stream/",
            }
            await socket.send_json(other)
            assert (await told(socket))[0]["status"] == 403
            await asyncio.to_thread(post, url, "ann", {"title": "first"})
            (event,) = await told(socket)
            assert event["channel"] == subscribed["channel"]
            assert event["data"]["title"] == "first"

    asyncio.run(listen())


async def told(socket):
    """The next items that are no sign of life."""
    while not (items := await socket.receive_json(timeout=20)):
        pass
    return items


def test_one_board_of_the_page_on_channels_has_its_own_url(streams):
    with EventStream(f"{streams.url}/boards/7/cards/stream/", as_("ann")) as stream:
        assert stream.next().envelope["channel"] == "shop.card~board.7"
