"""Settings of the test suite: on SQLite, or on what tests/databases.py started."""

import os
import tempfile

from tests.databases import settings_from

SECRET_KEY = "insecure-key-of-the-tests-of-32-bytes-or-more"
USE_TZ = True
ROOT_URLCONF = "tests.urls"
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "django_grip",
    "django_grip.contrib.realtime",
    "django_grip.contrib.eventlog",
    "django_grip.contrib.rest_framework",
    "tests.shop",
    "auction",
]
MIDDLEWARE = ["django_grip.GripMiddleware"]
PROXY_KEY = "a-key-of-the-tests-of-32-bytes-or-more"
GRIP_URL = f"http://127.0.0.1:9?key={PROXY_KEY}"
GRIP_PUBLISHER = "django_grip.publishers.locmem.Publisher"
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}
STATIC_URL = "static/"
# tests.shop has no migrations and refers to users, so theirs are left out as well.
MIGRATION_MODULES = {"auth": None, "contenttypes": None}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
    }
]

DATABASES = {
    "default": settings_from(os.environ)
    or {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        # A file: connections to one in memory do not wait for each other.
        "TEST": {"NAME": os.path.join(tempfile.gettempdir(), f"grip-{os.getpid()}.db")},
    }
}

# A second one, for what is written on another alias than the model's own.
DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
