"""A site of tenants behind each proxy, and clients over each transport."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache

import pytest

from tests.streams.followers import FOLLOWERS
from tests.streams.sites import TenantSite


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    """`sites(proxy)`: the one site behind it."""
    with ExitStack() as ends:
        yield cache(
            lambda proxy: ends.enter_context(
                TenantSite(tmp_path_factory.mktemp(proxy), proxy)
            )
        )


@pytest.fixture(params=FOLLOWERS)
def transport(request):
    return FOLLOWERS[request.param]


@pytest.fixture(
    params=["localproxy", pytest.param("pushpin", marks=pytest.mark.pushpin)]
)
def site(request, sites):
    return sites(request.param)


@pytest.fixture
def follow(site, transport):
    """`follow(path, user)`: a client of that stream, until the end of the test."""
    with ExitStack() as followers:

        def follow(path, user=None, **options):
            follower = transport(site, path, user, **options)
            followers.callback(follower.close)
            return follower

        yield follow


@pytest.fixture
def later():
    """`later(call, …)`: do it in a thread; returns what gives the result."""
    with ExitStack() as ends:
        pool = ends.enter_context(ThreadPoolExecutor())
        yield lambda *args, **kwargs: pool.submit(*args, **kwargs).result


@pytest.fixture
def ann(site):
    return site.user()


@pytest.fixture
def bob(site):
    """A user of another tenant."""
    return site.user()


@pytest.fixture
def row(site, ann):
    """The pk of a row of Ann's tenant."""
    return site.create(ann.tenant)
