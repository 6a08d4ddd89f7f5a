"""The words of README and docs, done: each snippet runs."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
import zmq
from django.apps import apps
from django.core.management import BaseCommand, load_command_class

from clients import EventStream, request
from django_grip import proxies
from django_grip.management import findings
from django_grip.publishers.endpoint import Endpoint
from pushpin import INSTALLED_CONFIG, Pushpin
from servers import ROOT, Process, SeedSite, answers, free_port, wait_until

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


class Project:
    """A project made by the words of a page, on ports of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.control_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "site_.settings",
        }

    def run(self, command):
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def write(self, block, append=("settings.py",), instead=None):
        """Put a block into the file that its first line names."""
        name = instead or re.match(r"# (\S+\.py)\n", block).group(1)
        block = block.replace("localhost:5561", f"localhost:{self.control_port}")
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        mode = "a" if path.name in append else "w"
        with path.open(mode) as file:
            file.write("\n" + block)

    def serve(self):
        server = Process(
            [sys.executable, "manage.py", "runserver", f"127.0.0.1:{self.port}"],
            self.directory / "runserver.log",
            self.environment,
            cwd=self.directory,
        )
        try:
            wait_until(
                lambda: answers(f"{self.url}/orders/?format=json"),
                "runserver answers",
            )
        except AssertionError as exc:
            server.kill()
            raise AssertionError(server.log.read_text()) from exc
        return server


ROUTE_ROOM = """# site_/urls.py
from shop.metrics import metrics
from shop.rooms import room
urlpatterns += [path("room/", room), path("metrics/", metrics)]
"""


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The project of the tutorial, made by its commands and blocks, and served."""
    project = Project(tmp_path_factory.mktemp("tutorial"))
    page = "docs/tutorial/live-list.md"
    create, prepare, change = blocks(page, "sh")
    for command in create.splitlines():
        if not command.startswith("pip "):
            project.run(command)
    for block in blocks(page, "python"):
        project.write(block)
    for command in prepare.splitlines():
        project.run(command)
    for block in blocks("docs/how-to/publish.md", "python"):
        project.write(block)
    project.write(ROUTE_ROOM, append=["urls.py"])
    server = project.serve()
    project.change = change
    yield project
    assert server.stop() == 0


def test_the_tutorial_ends_with_something_moving(tutorial):
    page = request(f"{tutorial.url}/")
    assert b'collection("/orders/stream/")' in page.body
    module = request(f"{tutorial.url}/static/grip_rest_framework/realtime.js")
    assert "javascript" in module.headers["Content-Type"]
    with EventStream(f"{tutorial.url}/orders/stream/") as stream:
        assert stream.next().event == "ready"
        tutorial.run(tutorial.change)
        event = stream.next()
        assert event.event == "create"
        assert event.envelope["data"]["total"] == "5.00"
        pk = event.envelope["pk"]
        answer = request(f"{tutorial.url}/orders/{pk}/", "PUT", {"total": "6.00"})
        assert answer.status == 200
        assert stream.next().envelope["data"]["total"] == "6.00"


def test_the_page_on_websockets_passes_its_own_test(tutorial):
    for block in blocks("docs/how-to/websocket.md", "python"):
        tutorial.write(block)
    urls = (
        "# site_/echo_urls.py\nfrom django.urls import path\n"
        "from shop.sockets import echo\nurlpatterns = [path('echo/', echo)]\n"
    )
    tutorial.write(urls, append=())
    settings = "# site_/echo_settings.py\nfrom site_.settings import *\n"
    tutorial.write(settings + "ROOT_URLCONF = 'site_.echo_urls'\n")
    output = tutorial.run(
        "python manage.py test shop.test_sockets --settings=site_.echo_settings"
    )
    assert "Ran 1 test" in output


def test_the_page_on_publishing_by_hand_does_what_it_says(tutorial):
    say = (
        "from django.test import RequestFactory; from shop.rooms import say; "
        "say(RequestFactory().post('/', {'text': 'hello'}))"
    )
    with EventStream(f"{tutorial.url}/room/") as stream:
        tutorial.run(f'python manage.py shell --verbosity=0 --command "{say}"')
        wait_until(lambda: stream.lines_seen("data: hello"), "the words arrive")
    lost = (
        "from shop import apps; from django_grip.publishers import get_publisher; "
        "from shop.models import Order; Order.objects.create(total=1); "
        "get_publisher().close(1); print('lost', apps.lost)"
    )
    settings = tutorial.directory / "dead.py"
    settings.write_text(
        "from site_.settings import *\nGRIP_URL = 'http://127.0.0.1:9'\n"
    )
    output = tutorial.run(
        f'python manage.py shell --settings=dead --verbosity=0 --command "{lost}"'
    )
    assert "lost 2" in output


def test_the_counters_of_the_page_on_publishing_are_served(tutorial):
    order = request(f"{tutorial.url}/orders/", "POST", {"status": "new", "total": 1})
    assert order.status == 201
    address = f"http://localhost:{tutorial.control_port}"
    sent = re.compile(rf'^grip_sent{{proxy="{address}"}} [1-9]', re.MULTILINE)
    wait_until(
        lambda: sent.search(request(f"{tutorial.url}/metrics/").body.decode()),
        "the counter shows what was sent",
    )


def test_the_publisher_of_the_page_on_publishing_hands_items_over(tutorial):
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver:
        port = receiver.bind_to_random_port("tcp://127.0.0.1")
        settings = (
            "from site_.settings import *\n"
            "GRIP_PUBLISHER = 'shop.zmq_publisher.Publisher'\n"
            f"ZMQ_PUSH_URI = 'tcp://127.0.0.1:{port}'\n"
        )
        (tutorial.directory / "over_zmq.py").write_text(settings)
        create = "from shop.models import Order; Order.objects.create(total=1)"
        tutorial.run(
            f'python manage.py shell --settings=over_zmq --verbosity=0 -c "{create}"'
        )
        frame = receiver.recv()
    assert frame.startswith(b"J{")
    assert json.loads(frame[1:])["channel"] == "shop.order"


MODELS_APP = """# shop/apps.py
from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"
    default_auto_field = "django.db.models.BigAutoField"
"""

MODELS_TESTS = """# shop/test_page.py
from django.contrib.auth.models import Group
from django.test import RequestFactory, TestCase
from django_grip.contrib.realtime import test as realtime
from django_grip.holds import GripData
from shop import imports, models, views


class PageTest(TestCase):
    def setUp(self):
        self.order = models.Order.objects.create(tenant=1, total=2000)

    def told(self, write):
        with realtime.capture_events() as events:
            with self.captureOnCommitCallbacks(execute=True):
                write()
        return [(event.op, event.channel) for event in events], list(events)

    def test_payloads(self):
        _, (tag, _) = self.told(lambda: models.Tag.objects.create(name="t"))
        self.assertIsNone(tag.data)
        _, (group, _) = self.told(lambda: Group.objects.create(name="g"))
        self.assertEqual(group.data["name"], "g")
        _, (customer, _) = self.told(lambda: models.Customer.objects.create(name="c"))
        self.assertEqual(set(customer.data), {"id", "name"})
        _, (product, _) = self.told(
            lambda: models.Product.objects.create(name="p", price=1, cost=0)
        )
        self.assertEqual(set(product.data), {"id", "name", "price"})

    def test_scopes(self):
        told, _ = self.told(self.order.save)
        pk = self.order.pk
        self.assertEqual(
            told,
            [
                ("update", "shop.order"),
                ("update", f"shop.order.{pk}"),
                ("update", "shop.order~tenant.1"),
                ("update", "shop.order~urgent.true"),
            ],
        )
        request = RequestFactory().get("/")
        request.grip = GripData(proxied=True)
        views.orders_of(request, 1)
        (channel,) = request.grip.instruct.channels
        self.assertEqual(channel.name, "shop.order~tenant.1")

    def test_should_publish(self):
        quote = models.Quote.objects.create(is_draft=False)
        self.assertEqual(self.told(quote.save)[0], [])

    def test_watch_and_touch(self):
        line = models.Line(order=self.order, sku="a")
        told, _ = self.told(line.save)
        self.assertIn(("create", "shop.line"), told)
        self.assertIn(("update", f"shop.order.{self.order.pk}"), told)
        line.picked_at = "2026-01-01T00:00Z"
        told, _ = self.told(line.save)
        self.assertNotIn("shop.line", {channel for _, channel in told})

    def test_bulk_writes(self):
        for rows, op, events in ((50, "create", 50), (51, "bulk", 1)):
            parcels = [models.Parcel(code=str(n)) for n in range(rows)]
            told, _ = self.told(lambda: models.Parcel.objects.bulk_create(parcels))
            self.assertEqual(told.count((op, "shop.parcel")), events)
        self.assertEqual(models.Parcel.objects.sent().count(), 0)

    def test_imports(self):
        told, events = self.told(imports.raise_totals)
        self.assertEqual(told[0], ("update", "shop.order"))
        self.assertEqual(events[0].data["total"], 2001)
        told, events = self.told(lambda: imports.import_parcels(["a", "b"]))
        self.assertEqual(told, [("imported", "shop.parcel")])
        self.assertEqual(events[0].data, {"count": 2})
"""


MODELS_URLS = """# site_/urls.py
from django.urls import include, path
from django_grip.contrib.rest_framework import StreamModelMixin
from rest_framework import permissions, routers, serializers, viewsets
from shop.models import Order


class OrderSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ("id", "status", "total")


class OrderViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer


class StaffOrderViewSet(OrderViewSet):
    permission_classes = (permissions.IsAdminUser,)


router = routers.DefaultRouter()
router.register("orders", OrderViewSet, basename="order")
router.register("staff/orders", StaffOrderViewSet, basename="staff-order")
urlpatterns = [path("", include(router.urls))]
"""


@pytest.fixture(scope="module")
def models_page(tmp_path_factory):
    """A project of the blocks of the page on models."""
    project = Project(tmp_path_factory.mktemp("models"))
    project.run("django-admin startproject site_ .")
    project.run("python manage.py startapp shop")
    (project.directory / "shop" / "models.py").unlink()
    (project.directory / "shop" / "tests.py").unlink()
    for block in blocks("docs/tutorial/live-list.md", "python"):
        if block.startswith("# site_/settings.py"):
            project.write(block)
    for block in blocks("docs/how-to/models.md", "python"):
        project.write(block, append=("models.py",))
    project.write(MODELS_APP)
    project.write(MODELS_TESTS)
    project.write(MODELS_URLS)
    project.run("python manage.py makemigrations shop")
    return project


def test_the_page_on_models_passes_its_own_tests(models_page):
    models_page.run("python manage.py check --fail-level WARNING")
    output = models_page.run("python manage.py test shop.tests shop.test_page")
    assert "Ran 9 tests" in output


def test_the_commands_of_the_page_on_models_say_what_the_reference_shows(models_page):
    models_page.run("python manage.py migrate")
    create = (
        "from django.contrib.auth.models import User; from shop.models import Order; "
        "User.objects.create(username='ann'); Order.objects.create(pk=42, tenant=1)"
    )
    models_page.run(f'python manage.py shell --verbosity=0 --command "{create}"')
    listing, explanation = blocks("docs/reference/realtime-commands.md", "text")
    (commands,) = (
        block
        for block in blocks("docs/how-to/models.md", "console")
        if "realtime_list" in block
    )
    list_command, explain_command = commands.splitlines()
    assert f"\n{listing}" in "\n" + models_page.run(list_command)
    assert explanation == models_page.run(explain_command)


EVENT_LOG_ROUTES = """# site_/urls.py
from shop.metrics import metrics
urlpatterns += [path("metrics/", metrics)]
"""


@pytest.fixture(scope="module")
def event_log(tmp_path_factory):
    """The project of the tutorial with the event log, as its page says; served."""
    project = Project(tmp_path_factory.mktemp("event_log"))
    project.run("django-admin startproject site_ .")
    project.run("python manage.py startapp shop")
    for page in ("docs/tutorial/live-list.md", "docs/how-to/event-log.md"):
        for block in blocks(page, "python"):
            project.write(block)
    project.write(EVENT_LOG_ROUTES, append=["urls.py"])
    project.run("python manage.py makemigrations shop")
    install = blocks("docs/how-to/event-log.md", "console")[0]
    for command in install.splitlines():
        project.run(command)
    server = project.serve()
    yield project
    assert server.stop() == 0


def shell(project, code):
    return project.run(f'python manage.py shell --verbosity=0 --command "{code}"')


def new_order(project, total):
    """The pk of an order that the site makes."""
    order = {"status": "new", "total": total}
    return request(f"{project.url}/orders/", "POST", order).json()["id"]


def test_the_page_on_the_event_log_passes_its_own_test(event_log):
    event_log.run("python manage.py check --fail-level WARNING --database default")
    output = event_log.run("python manage.py test shop.test_log")
    assert "Ran 2 tests" in output


def missed(project, position):
    """The events of a client that comes back with a position, the first left out.

    They end with one that happens now.
    """
    with EventStream(
        f"{project.url}/orders/stream/", {"Last-Event-ID": position}
    ) as stream:
        assert stream.next().event == "ready"
        last = new_order(project, 1)
        events = [stream.next()]
        while events[-1].envelope.get("pk") != last:
            events.append(stream.next())
        return events


def wait_until_told(project):
    """Tell something, until the site's own figures say that nothing is on its way."""
    new_order(project, 3)
    address = f"http://localhost:{project.control_port}"
    told = (f'grip_log_lag{{proxy="{address}"}} 0\n', "grip_log_depth 0\n")

    def is_told():
        served = request(f"{project.url}/metrics/").body.decode()
        return all(figure in served for figure in told)

    wait_until(is_told, "all is told")


def test_the_figures_of_the_page_on_the_event_log_are_served(event_log):
    wait_until_told(event_log)
    served = request(f"{event_log.url}/metrics/").body.decode()
    assert re.search(r"^grip_log_last_seq [1-9]", served, re.MULTILINE)


def test_a_client_of_the_page_on_the_event_log_misses_nothing(event_log):
    wait_until_told(event_log)
    with EventStream(f"{event_log.url}/orders/stream/") as stream:
        ready = stream.next().envelope
        assert ready["gapless"] is True
        new_order(event_log, 5)
        event = stream.next()
        seq = event.envelope["seq"]
        epoch, _, before = ready["position"].partition(".")
        assert event.envelope["prev"] == int(before)
        wait_until(lambda: stream.lines_seen(f"id: {epoch}.{seq}"), "it has an id")
    assert missed(event_log, ready["position"])[0] == event


def test_who_is_erased_leaves_the_log_of_the_page(event_log):
    wait_until_told(event_log)
    with EventStream(f"{event_log.url}/orders/stream/") as stream:
        position = stream.next().envelope["position"]
        pk = new_order(event_log, 77)
        assert stream.next().envelope["data"]["total"] == "77.00"
        request(f"{event_log.url}/orders/{pk}/", "DELETE")
        assert stream.next().event == "delete"
    assert "77.00" in str(missed(event_log, position))
    count = (
        f"from shop.erasure import forget; forget('shop.order', {pk}); "
        "from django_grip.contrib.eventlog.models import LoggedEvent as L; "
        "print(L.objects.filter(text__contains='77.00').count())"
    )
    assert shell(event_log, count).strip() == "0"
    events = missed(event_log, position)
    assert "77.00" not in str(events)
    assert (events[0].event, events[0].envelope["pk"]) == ("delete", pk)


def test_after_a_backup_the_page_on_the_event_log_resets_clients(event_log):
    with EventStream(f"{event_log.url}/orders/stream/") as stream:
        position = stream.next().envelope["position"]
    trim, renew = blocks("docs/how-to/event-log.md", "console")[-2:]
    assert "0 events removed" in event_log.run(trim)
    event_log.run(renew)
    reset = missed(event_log, position)[0]
    assert reset.event == "reset"
    assert reset.envelope["reason"] == "epoch"


def test_the_unit_of_the_relay_runs_it():
    (block,) = blocks("docs/how-to/event-log.md", "ini")
    unit = sections(block)
    assert {s for s, _ in unit} == {"Unit", "Service", "Install"}
    assert unit["Service", "ExecStart"].endswith("python manage.py grip_relay")


def test_the_reference_of_the_event_log_has_every_table_reason_and_figure():
    page = (ROOT / "docs/reference/event-log.md").read_text()
    for model in apps.get_app_config("grip_eventlog").get_models():
        assert f"| `{model.__name__}` | `{model._meta.db_table}` |" in page
    history = (ROOT / "django_grip/contrib/eventlog/history.py").read_text()
    reasons = re.findall(r'_reset\(using, state, channel, "([a-z-]+)"\)', history)
    assert len(reasons) >= 5
    for name in {*reasons, "depth", "oldest_age", "set_aside", "last_seq", "leader"}:
        assert f"| `{name}` |" in page, name
    for name in ("published", "lag", "lag_seconds", "failing_seconds"):
        assert f"`{name}`" in page, name


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    """A project with the ten lines of the README, as pasted."""
    project = Project(tmp_path_factory.mktemp("readme"))
    project.run("django-admin startproject site_ .")
    project.run("python manage.py startapp shop")
    settings = project.directory / "site_" / "settings.py"
    settings.write_text(
        settings.read_text().replace(
            "INSTALLED_APPS = [", 'INSTALLED_APPS = ["shop", "rest_framework",'
        )
    )
    for block in blocks("README.md", "python"):
        named = block.startswith("# settings.py")
        project.write(block, instead="site_/settings.py" if named else None)
    for block in blocks("docs/tutorial/live-list.md", "python"):
        if block.startswith(("# shop/serializers.py", "# site_/urls.py")):
            block = block.replace('path("", page), ', "").replace(", page", "")
            project.write(block)
    project.run("python manage.py makemigrations shop")
    project.run("python manage.py migrate")
    project.run("python manage.py check --fail-level WARNING")
    server = project.serve()
    yield project
    assert server.stop() == 0


CREATE = (
    "from shop.models import Order; o = Order.objects.create(status='new', total=5); "
    "o.status = 'paid'; o.save()"
)


def test_the_ten_lines_of_the_readme_stream(readme):
    with EventStream(f"{readme.url}/orders/stream/") as stream:
        assert stream.next().event == "ready"
        readme.run(f'python manage.py shell --verbosity=0 --command "{CREATE}"')
        assert [stream.next().event, stream.next().event] == ["create", "update"]


@pytest.mark.chromium
def test_the_javascript_of_the_readme_shows_the_row(readme, driver):
    from selenium.webdriver.support.ui import WebDriverWait

    (script,) = blocks("README.md", "js")
    driver.get(f"{readme.url}/orders/?format=json")
    driver.execute_script(
        "window.shown = []; window.show = rows => shown.push(rows);"
        "const script = document.createElement('script');"
        "script.type = 'module'; script.textContent = arguments[0];"
        "document.body.append(script);",
        script,
    )

    def until(condition):
        return WebDriverWait(driver, 20).until(
            lambda driver: driver.execute_script(f"return {condition}")
        )

    # Without an event log the rows are asked for again when the stream is open.
    [before] = until("shown.length == 2 && [shown.at(-1).length]")
    readme.run(f'python manage.py shell --verbosity=0 --command "{CREATE}"')
    until(f"shown.at(-1)[{before}]?.status === 'paid'")


def test_the_commands_of_the_readme_exist():
    make = (ROOT / "Makefile").read_text()
    for block in blocks("README.md", "sh"):
        for line in block.splitlines():
            if line.startswith("make "):
                verb = line.split()[1]
                assert re.search(rf"^{verb}:", make, re.MULTILINE)
            else:
                # As the metadata has them: pip before 23.3 takes no other spelling.
                extras = re.fullmatch(r"pip install '\.\[(.+)\]'", line)[1].split(",")
                provided = metadata("django-grip").get_all("Provides-Extra")
                assert set(extras) <= set(provided)


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS, *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_and_check_is_in_the_reference():
    settings = (ROOT / "docs/reference/settings.md").read_text()
    for path in (ROOT / "django_grip").rglob("conf.py"):
        for name in re.findall(r'"""([A-Z_]+):', path.read_text()):
            assert f"`{name}`" in settings, name
    checks = (ROOT / "docs/reference/checks.md").read_text()
    ids = []
    for path in (ROOT / "django_grip").rglob("checks.py"):
        ids += re.findall(r'id="([a-z_]+\.[EW]\d{3})"', path.read_text())
    assert len(ids) >= 10
    for id in ids:
        assert f"`{id}`" in checks, id
    assert set(re.findall(r"`([a-z_]+\.[EW]\d{3})`", checks)) == set(ids)


# The pages for operators.


def sections(block):
    """An ini block as {(section, name): value}."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(block)
    return {
        (s, name): value for s in parser.sections() for name, value in parser.items(s)
    }


@pytest.mark.pushpin
def test_the_page_on_pushpin_ends_with_what_the_command_says(tmp_path):
    page = "docs/how-to/pushpin.md"
    lines = sections(blocks(page, "ini")[0])
    assert lines.keys() <= sections(INSTALLED_CONFIG.read_text()).keys()
    key = lines.pop(("proxy", "sig_key"))
    own = {"http_port", "push_in_http_addr"}  # The addresses are the test's.
    site = SeedSite(tmp_path, proxy=None)
    block = blocks(page, "python")[0]
    (tmp_path / "of_the_page.py").write_text(
        "from seed_settings import *\n\nGRIP_URL = None\n\n"
        + block.replace("localhost:5561", f"127.0.0.1:{site.control_port}")
    )
    site.env["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    site.env |= {"DJANGO_SETTINGS_MODULE": "of_the_page", "GRIP_KEY": key}
    pushpin = Pushpin(
        tmp_path / "pushpin",
        upstream=f"127.0.0.1:{site.django_port}",
        http_port=site.port,
        control_port=site.control_port,
        key=key,
        settings={name: lines[_, name] for _, name in lines if name not in own},
    )
    site.start_django()
    try:
        with pushpin:
            output = site.manage("grip_check", f"--url={site.url}/")
    finally:
        site.stop_django()
    output = output.replace(site.url, "https://example.com")
    output = output.replace(pushpin.control_url, "http://localhost:5561")
    _, _, sample = blocks(page, "console")[-1].partition("\n")
    assert re.sub(r"\d+ ms", "N ms", output) == re.sub(r"\d+ ms", "N ms", sample)


def test_several_pushpins_are_several_proxies(settings, monkeypatch):
    settings.GRIP_URL = None
    monkeypatch.setenv("GRIP_KEY", "a-secret-of-the-tests-of-32-bytes-or-more")
    first, several = blocks("docs/how-to/pushpin.md", "python")
    for block, count in [(first, 1), (first + several, 2)]:
        namespace = {}
        exec(block, namespace)
        settings.GRIP_PROXIES = namespace["GRIP_PROXIES"]
        assert len(proxies.configured()) == count
    assert namespace["SECURE_PROXY_SSL_HEADER"][1] == "https"


@pytest.mark.nginx
def test_nginx_takes_its_configuration(tmp_path):
    (block,) = blocks("docs/how-to/pushpin.md", "nginx")
    block = block.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"{kind}_temp_path {tmp_path}/{kind}; " for kind in kinds)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"error_log {tmp_path}/error.log; pid {tmp_path}/pid; events {{}} "
        f"http {{ access_log off; {own} {block} }}"
    )
    subprocess.run(["nginx", "-t", "-p", tmp_path, "-c", config], check=True)


def test_the_units_of_systemd_have_the_usual_parts():
    _, *units = blocks("docs/how-to/pushpin.md", "ini")
    for unit in units:
        assert {s for s, _ in sections(unit)} <= {"Unit", "Service", "Install"}
    assert sections(units[0])["Service", "LimitNOFILE"] == "65536"
    command = sections(units[1])["Service", "ExecStart"].split()
    assert [Path(command[0]).name, command[3]] == ["gunicorn", "--bind"]


def test_compose_keeps_the_control_port_to_itself():
    (block,) = blocks("docs/how-to/pushpin.md", "yaml")
    services = yaml.safe_load(block)["services"]
    assert services["pushpin"]["ports"] == ["127.0.0.1:7999:7999"]
    assert "ports" not in services["django"]


def test_the_settings_for_fastly_publish_and_verify_as_fastly_asks(
    settings, monkeypatch
):
    monkeypatch.setenv("FASTLY_SERVICE", "abc")
    monkeypatch.setenv("FASTLY_TOKEN", "token-of-fastly")
    (block,) = blocks("docs/how-to/fastly.md", "python")
    namespace = {}
    exec(block, namespace)
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = namespace["GRIP_PROXIES"]
    (proxy,) = proxies.configured()
    assert proxy.verify_iss == "fastly:abc"
    assert list(findings.keys([proxy])) == []
    assert Endpoint(proxy).address == "https://api.fastly.com/service/abc"
    key = b64encode(proxy.verify_key.encode()).decode()
    settings.GRIP_PROXIES = []
    settings.GRIP_URL = (
        "https://api.fastly.com/service/abc?key=token-of-fastly"
        f"&verify-iss=fastly:abc&verify-key=base64:{key}"
    )
    (from_url,) = proxies.configured()
    assert from_url == replace(proxy, verify_key=proxy.verify_key.encode())


def test_the_commands_of_the_pages_take_what_they_are_given():
    count = 0
    for page in DOCS:
        for block in blocks(page.relative_to(ROOT), "console"):
            for line in re.findall(r"python manage\.py (grip_.*)", block):
                name, *arguments = shlex.split(line, comments=True)
                load_command_class(*COMMANDS[name]).create_parser(
                    "manage.py", name
                ).parse_args(arguments)
                count += 1
    assert count >= 6


COMMANDS = {
    "grip_check": ("django_grip", "grip_check"),
    "grip_publish": ("django_grip", "grip_publish"),
    "grip_proxy": ("django_grip.contrib.localproxy", "grip_proxy"),
    "grip_relay": ("django_grip.contrib.eventlog", "grip_relay"),
    "grip_trim": ("django_grip.contrib.eventlog", "grip_trim"),
}


def test_every_option_of_the_commands_is_in_the_reference():
    page = (ROOT / "docs/reference/commands.md").read_text()
    common = {action.dest for action in BaseCommand().create_parser("", "")._actions}
    for name in sorted(COMMANDS.keys() - {"grip_proxy"}):
        assert f"## `{name}`" in page
        parser = load_command_class(*COMMANDS[name]).create_parser("", name)
        for action in parser._actions:
            if action.dest not in common:
                for word in action.option_strings or [action.dest.upper()]:
                    assert f"`{word}" in page, word
