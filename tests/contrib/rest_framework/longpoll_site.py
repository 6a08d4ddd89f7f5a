"""Settings of a site with the event log, whose long-polls a test can watch and stop."""

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403

ROOT_URLCONF = "tests.contrib.rest_framework.longpoll_urls"
MIDDLEWARE = [
    "tests.contrib.rest_framework.longpoll_urls.Cors",
    "django_grip.GripMiddleware",
    "tests.contrib.rest_framework.longpoll_urls.Polls",
]
