"""Settings of the child processes: those of the tests, on the test's own database."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["CHILD_DATABASE"]
GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
GRIP_PUBLISH_INTERVAL = 0.005
GRIP_URL = os.environ["CHILD_GRIP_URL"]
GRIP_REALTIME = json.loads(os.environ["CHILD_GRIP_REALTIME"])
