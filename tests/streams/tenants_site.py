"""Settings of the site of tenants.py with the event log, behind a proxy.

See tests/contrib/eventlog/pushpin_site.py for the environment.
"""

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403
from tests.contrib.eventlog.pushpin_site import INSTALLED_APPS as SITE_APPS

INSTALLED_APPS = [*SITE_APPS, "django.contrib.sessions"]
ROOT_URLCONF = "tests.streams.tenants"
MIDDLEWARE = [
    "tests.streams.tenants.Pauses",
    "django_grip.GripMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
