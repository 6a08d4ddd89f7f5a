"""Settings of the project that the chaos runner kills; the runner sets what varies."""

import os

from tests.databases import settings_from

SECRET_KEY = "insecure-key-of-the-chaos-runner"
USE_TZ = True
# Django puts it into the environment, from where servers that are started anew take it.
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.chaos.urls"
WSGI_APPLICATION = "tests.chaos.wsgi.application"
ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_grip",
    "django_grip.contrib.realtime",
    "django_grip.contrib.eventlog",
    "tests.chaos",
]
MIDDLEWARE = ["django_grip.GripMiddleware"]
GRIP_URL = os.environ.get("GRIP_URL", "")
GRIP_REALTIME = {
    "RELAY": "daemon",
    "KEEP_ALIVE": 3,
    "LINK_TIMEOUT": 5,
    "STREAM_MAX_AGE": 20,
    "RETRY": (0.1, 0.5),
}
# To stderr, as errors of the views are something to look at.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler", "level": "ERROR"}},
    "loggers": {"django.request": {"handlers": ["console"]}},
}
if "CHAOS_HISTORY_ROWS" in os.environ:
    GRIP_REALTIME["HISTORY_ROWS"] = int(os.environ["CHAOS_HISTORY_ROWS"])

DATABASES = {
    "default": settings_from(os.environ)
    or {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAOS_SQLITE", ":memory:"),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL",
        },
    }
}
