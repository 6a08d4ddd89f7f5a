"""Settings of the site of over_time.py with the event log, behind a proxy.

See tests/contrib/eventlog/pushpin_site.py for the environment.
"""

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403
from tests.contrib.eventlog.pushpin_site import INSTALLED_APPS as SITE_APPS

INSTALLED_APPS = [*SITE_APPS, "django.contrib.sessions", "corsheaders"]
ROOT_URLCONF = "tests.contrib.rest_framework.over_time"
MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "tests.contrib.eventlog.pushpin_urls.Links",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CORS_ALLOWED_ORIGINS = ["https://shop.example"]
CORS_ALLOW_CREDENTIALS = True
