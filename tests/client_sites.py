"""The site of the tests of realtime.js, behind the local proxy."""

import sys
from pathlib import Path

from clients import request
from servers import ROOT, Process, Site, answers, wait_until


class ClientSite(Site):
    """tests/client_site.py in gunicorn; `files` are served under /files/."""

    settings = "tests.client_site"
    wsgi = "django.core.wsgi:get_wsgi_application()"
    project = ROOT / "tests"
    probe = "/shipments/"

    def __init__(self, directory, proxy="localproxy"):
        super().__init__(directory, proxy)
        self.files = Path(directory) / "files"
        self.files.mkdir()
        self.env |= {
            "SITE_DB": str(self.directory / "db.sqlite3"),
            "SITE_FILES": str(self.files),
            "SITE_REALTIME": '{"RETRY": [0.05, 0.2]}',
        }

    def prepare(self):
        self.manage("migrate", "--run-syncdb", "--verbosity=0")

    def start_django(self):
        self._django = Process(
            [
                *(sys.executable, "-m", "gunicorn", "--threads=8"),
                f"--bind=127.0.0.1:{self.django_port}",
                *("--no-control-socket", self.wsgi),
            ],
            self.directory / "django.log",
            self.env,
        )
        wait_until(
            lambda: answers(f"http://127.0.0.1:{self.django_port}{self.probe}"),
            "gunicorn answers",
        )

    def ask(self, path, method="GET", body=None):
        """What gunicorn itself answers, as JSON."""
        url = f"http://127.0.0.1:{self.django_port}{path}"
        answer = request(url, method, body)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body else None

    def create(self, **values):
        """A shipment; returns its id."""
        return self.ask("/shipments/", "POST", values)["id"]

    def change(self, pk, **values):
        self.ask(f"/shipments/{pk}/", "PATCH", values)

    def delete(self, pk):
        self.ask(f"/shipments/{pk}/", "DELETE")
