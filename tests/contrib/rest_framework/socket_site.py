"""Settings of a site with WebSockets and sessions, behind a proxy: see pushpin_site.py.

Its URLs are those of socket_site_urls.py.
"""

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403
from tests.contrib.eventlog.pushpin_site import INSTALLED_APPS as SITE_APPS

INSTALLED_APPS = [*SITE_APPS, "django.contrib.sessions"]
ROOT_URLCONF = "tests.contrib.rest_framework.socket_site_urls"
MIDDLEWARE = [
    "tests.contrib.rest_framework.socket_site_urls.Waits",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_grip.GripMiddleware",
]
