"""Settings of a site with the event log, behind a proxy that tests meddle with.

The environment names the proxies (GRIP_URL and, for a second one, SECOND_GRIP_URL), the
SQLite file (SITE_DB) and the directory of SITE_JOURNAL and SITE_WAIT: see
pushpin_urls.py. SITE_REALTIME is GRIP_REALTIME as JSON.
"""

import json
import os
from urllib.parse import unquote

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as TEST_APPS
from tests.settings import settings_from

INSTALLED_APPS = [*TEST_APPS, "django_grip.contrib.localproxy"]
ROOT_URLCONF = "tests.contrib.eventlog.pushpin_urls"
MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "tests.contrib.eventlog.pushpin_urls.Links",
]
DEBUG = False
GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
GRIP_PUBLISH_INTERVAL = 0.005
GRIP_URL = os.environ["GRIP_URL"]
GRIP_PROXIES = []
if second := os.environ.get("SECOND_GRIP_URL"):
    uri, _, key = second.partition("?key=")
    GRIP_PROXIES = [{"control_uri": uri, "key": unquote(key)}]
# The site itself changes it while it runs: see pushpin_urls.configure().
GRIP_REALTIME = json.loads(os.environ.get("SITE_REALTIME", "{}"))
DATABASES = {
    "default": settings_from(os.environ)
    or {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SITE_DB"],
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
