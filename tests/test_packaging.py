"""The package as others get it: what is in it, and what importing it does."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module

import pytest

from servers import ROOT

PUBLIC = [
    "django_grip",
    "django_grip.contrib.realtime",
    "django_grip.contrib.rest_framework",
]


@pytest.fixture(scope="module")
def metadata():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_promised_name_is_importable_and_documented(package):
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_setup_py_is_one_call_without_arguments():
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call)
    ]
    assert len(calls) == 1
    assert not calls[0].args
    assert not calls[0].keywords


IMPORTS = """
import sys, threading
import django_grip, django_grip.publishers.http
import django_grip.contrib.realtime
import django_grip.contrib.rest_framework
from django.conf import settings
assert not settings.configured, "settings were read"
assert threading.active_count() == 1, "a thread was started"
assert "rest_framework" not in sys.modules, "DRF was imported"
assert "aiohttp" not in sys.modules, "aiohttp was imported"
"""


def test_importing_reads_no_setting_and_starts_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT)


def test_the_wheel_has_the_package_and_nothing_else(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(ROOT)),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("django_grip-4.0.0.dev0-py3-none-any")
    names = zipfile.ZipFile(wheel).namelist()
    assert "django_grip/py.typed" in names
    static = "django_grip/contrib/rest_framework/static/grip_rest_framework"
    assert {f"{static}/realtime.js", f"{static}/realtime.d.ts"} <= set(names)
    assert "django_grip/contrib/localproxy/management/commands/grip_proxy.py" in names
    assert {name.split("/")[0] for name in names} == {
        "django_grip",
        "django_grip-4.0.0.dev0.dist-info",
    }


def test_what_is_claimed_is_what_ci_runs(metadata):
    claimed = {
        line.rpartition(" ")[2]
        for line in metadata["classifiers"]
        if line.startswith(("Framework :: Django ::", "Programming Language :: Python"))
    }
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tox"]
    run = {"3.11", "5.2"}  # make test, see the README
    for env in tool["env_list"]:
        python, django = env.removeprefix("py").split("-django")
        run |= {f"{python[0]}.{python[1:]}", f"{django[0]}.{django[1:]}"}
    assert claimed == run


def test_the_extras_are_those_promised(metadata):
    assert set(metadata["optional-dependencies"]) == {
        "rest-framework",
        "localproxy",
        "dev",
    }
