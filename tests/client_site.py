"""Settings of a site for the tests of realtime.js: see pushpin_site.py.

SITE_FILES is a directory whose files are served under /files/.
"""

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403
from tests.contrib.eventlog.pushpin_site import INSTALLED_APPS as SITE_APPS

DEBUG = True  # The module is a static file.
INSTALLED_APPS = [*SITE_APPS, "django.contrib.sessions", "django.contrib.staticfiles"]
ROOT_URLCONF = "tests.client_site_urls"
MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
LOGGING_CONFIG = None
