"""The site of over_time.py, behind a proxy."""

from tests.clients import request
from tests.contrib.eventlog.pushpin_shop import Shop


class Site(Shop):
    """The site of over_time.py."""

    settings = "tests.contrib.rest_framework.over_time_site"
    probe = "/tags/"

    def act(self, what, **values):
        answer = request(f"{self.origin}/act/", "POST", {"act": what, **values})
        assert answer.status == 200, answer.body

    def tell(self, text, count=1):
        self.act("tell", text=text, count=count)

    def user(self, name):
        """A user who is logged in: the cookie."""
        said = {"username": name, "password": "secret"}
        made = request(f"{self.origin}/users/", "POST", said)
        assert made.status == 200, made.body
        answer = request(f"{self.origin}/login/", "POST", said)
        return answer.headers["Set-Cookie"].partition(";")[0]

    def asked(self, channel, what="answered"):
        lines = self.journal.read_text().splitlines()
        return [
            line for line in lines if line.startswith(what) and f" {channel};" in line
        ]
