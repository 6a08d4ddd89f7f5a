"""The site of over_time.py, where users have streams of their own, and one user."""

import pytest
from django.contrib.auth.models import User

from django_grip.test import GripClient
from tests.contrib.rest_framework import over_time


@pytest.fixture
def users_site(settings):
    """The views of over_time.py, with sessions in the cache."""
    settings.ROOT_URLCONF = "tests.contrib.rest_framework.over_time"
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.MIDDLEWARE = over_time.MIDDLEWARE
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ann():
    return User.objects.create_user("ann", password="secret-of-ann")


@pytest.fixture
def browser(ann):
    """A client of hers, through the proxy, with her session."""
    client = GripClient()
    client.force_login(ann)
    return client


@pytest.fixture
def bare():
    """The proxy itself: it sends no cookies."""
    return GripClient()
