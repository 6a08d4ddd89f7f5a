"""The site of tenants.py behind a proxy, and what a test does there past the proxy."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.clients import request
from tests.contrib.eventlog.pushpin_shop import Shop
from tests.servers import wait_until


@dataclass(frozen=True)
class User:
    name: str
    tenant: str
    cookie: str


@dataclass(frozen=True)
class Pause:
    """A place where the requests of one client stop: `rows` or `answer`."""

    name: str
    file: Path

    def until_reached(self):
        reached = self.file.with_suffix(".reached")
        wait_until(reached.exists, f"a request has come to {self.name}")


class TenantSite(Shop):
    settings = "tests.streams.tenants_site"
    probe = "/projects/"

    def user(self, tenant=None):
        """A new user, logged in, of this tenant or a new one."""
        name = f"user-{uuid4().hex[:8]}"
        tenant = tenant or f"tenant-of-{name}"
        answer = self._post(f"user/{name}/{tenant}")
        return User(name, tenant, answer.headers["Set-Cookie"].partition(";")[0])

    def log_out(self, user):
        self._post("logout", cookie=user.cookie)

    def create(self, tenant, name="new"):
        """The pk of a new row, of which all were told."""
        pk = self._post(f"create/{tenant}", {"name": name}).json()["pk"]
        self.settle()
        return pk

    def save(self, pk, name):
        self._post(f"save/{pk}", {"name": name})

    def act(self, path):
        self._post(path)

    def _post(self, path, values=None, cookie=""):
        url, headers = f"{self.origin}/{path}/", {"Cookie": cookie}
        answer = request(url, "POST", values or {}, headers=headers, timeout=30)
        assert answer.status == 200, answer.body
        return answer

    @contextmanager
    def pause(self, place):
        """A pause at this place, until the end."""
        name = f"{place}-{uuid4().hex}"
        file = self.wait.with_name(name)
        file.touch()
        try:
            yield Pause(name, file)
        finally:
            file.unlink()
