"""Settings of a site whose API is browsed, behind a proxy: see test_panel.py.

The environment names the proxy (GRIP_URL) and the SQLite file (SAMPLE_DB).
"""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as TEST_APPS

INSTALLED_APPS = [
    *TEST_APPS,
    "django_grip.contrib.localproxy",
    "django.contrib.staticfiles",
]
ROOT_URLCONF = "tests.contrib.rest_framework.test_panel"
MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "tests.contrib.rest_framework.test_panel.strict",
]
DEBUG = True
GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
GRIP_URL = os.environ["GRIP_URL"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SAMPLE_DB"],
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}
