"""A project as the README of django-grip in 2017 tells to make it."""

import os

SECRET_KEY = "insecure-key-of-the-tests-of-32-bytes-or-more"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "seed_urls"
WSGI_APPLICATION = "seed_wsgi.application"
MIDDLEWARE = ["django_grip.GripMiddleware"]
INSTALLED_APPS = ["django_grip", "django_grip.contrib.localproxy"]
GRIP_URL = os.environ["GRIP_URL"]
GRIP_PREFIX = "myapp-"
