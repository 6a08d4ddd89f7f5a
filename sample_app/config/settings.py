"""Settings of the sample project.

Everything that differs between two runs comes from the environment: GRIP_URL, DEBUG,
ALLOWED_HOSTS, SAMPLE_RELAY, SAMPLE_DB, and SAMPLE_DB_ENGINE=postgresql with PGHOST and
friends.
"""

import os
from pathlib import Path

from config import DEMO_KEY

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "insecure-demo-key-that-protects-nothing-worth-protecting"
DEBUG = os.environ.get("DEBUG", "1") != "0"
ALLOWED_HOSTS = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    *os.environ.get("ALLOWED_HOSTS", "").split(),
]

# What makes the site live: three apps, one middleware, one URL. The event log makes it
# durable: what was committed arrives, in order, whatever is killed meanwhile. The local
# proxy puts a GRIP proxy in front of `runserver` while you develop.
INSTALLED_APPS = [
    "django_grip",
    "django_grip.contrib.realtime",
    "django_grip.contrib.eventlog",
    "django_grip.contrib.rest_framework",
    "django_grip.contrib.localproxy",
    "rest_framework",
    "auction",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# The proxy's control port, and the key the proxy signs its requests with.
GRIP_URL = os.environ.get("GRIP_URL", f"http://127.0.0.1:5561?key={DEMO_KEY}")

# Who publishes what is in the event log: `inline`, a thread in each process that
# writes, or `daemon`, which is `manage.py grip_relay` alone.
GRIP_REALTIME = {"RELAY": os.environ.get("SAMPLE_RELAY", "inline")}

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

if os.environ.get("SAMPLE_DB_ENGINE") == "postgresql":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ.get("PGHOST", "127.0.0.1"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "NAME": os.environ.get("PGDATABASE", "auction"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SAMPLE_DB", BASE_DIR / "db.sqlite3"),
            "OPTIONS": {
                # SQLite has no row locks. A transaction that begins by taking the
                # write lock waits for its turn; one that asks for it midway fails.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REST_FRAMEWORK = {
    # Who has not logged in may bid as well, as `curl` does. A real auction says no.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication"
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
}

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "lots"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

# Errors only: a refused bid is no news, and the demo's terminal should stay readable.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "django": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "django.server": {"level": "ERROR", "handlers": ["console"]},
    },
}
