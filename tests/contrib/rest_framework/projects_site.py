"""Settings and URLs of a site with the views of projects.py, behind a proxy.

While the file SITE_WAIT is there, `/slow/` waits before it reads its rows, and says so
in a file beside it.
"""

import os
import time
from pathlib import Path

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403

ROOT_URLCONF = "tests.contrib.rest_framework.projects_site_urls"
MIDDLEWARE = ["django_grip.GripMiddleware"]


def wait():
    waits = Path(os.environ["SITE_WAIT"])
    if waits.exists():
        waits.with_suffix(".reached").touch()
        while waits.exists():
            time.sleep(0.01)
