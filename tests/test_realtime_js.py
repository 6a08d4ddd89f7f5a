"""realtime.js in Node: its rules, and its streams over real sockets."""

import json
import re
import subprocess

import pytest
from django.contrib.staticfiles import finders

from servers import ROOT

pytestmark = pytest.mark.node

FOLDER = ROOT / "django_grip/contrib/rest_framework/static/grip_rest_framework"
TESTS = sorted((ROOT / "tests/js").glob("*.test.mjs"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_node_runs_it(path):
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(path)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_name_what_the_module_exports():
    module = (FOLDER / "realtime.js").read_text()
    types = (FOLDER / "realtime.d.ts").read_text()
    exported = re.compile(r"^export (?:function|class|const) (\w+)", re.MULTILINE)
    assert exported.findall(module)
    assert sorted(exported.findall(types)) == sorted(exported.findall(module))


def test_the_types_name_the_members_and_options():
    """Those of the classes behind stream(), collection() and socket()."""
    script = """
    const module = await import(process.argv[1]);
    const names = {};
    for (const [what, url] of [["stream", "http://127.0.0.1:9/stream/"],
                               ["collection", "http://127.0.0.1:9/stream/"],
                               ["socket", "http://127.0.0.1:9/"]]) {
      const made = module[what](url, {WebSocket: class {}});
      made.close();
      const own = Object.getOwnPropertyNames(Object.getPrototypeOf(made));
      names[what] = [...own, ...Object.keys(made)]
        .filter((name) => name !== "constructor" && !name.startsWith("_"));
    }
    console.log(JSON.stringify(names));
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script, str(FOLDER / "realtime.js")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    types = (FOLDER / "realtime.d.ts").read_text()
    for what, members in json.loads(done.stdout).items():
        body = re.search(
            rf"export interface {what.capitalize()}\b.*?{{\n(.*?)^}}",
            types,
            re.DOTALL | re.MULTILINE,
        ).group(1)
        named = set(re.findall(r"^  (?:readonly )?(\w+)[?(<:]", body, re.MULTILINE))
        assert set(members) == named, what


def test_the_module_imports_nothing_and_makes_no_html():
    module = (FOLDER / "realtime.js").read_text()
    assert not re.search(r"^import |\bimport\(|\brequire\(", module, re.MULTILINE)
    assert "innerHTML" not in module
    assert "console.log" not in module


@pytest.mark.parametrize("name", ["realtime.js", "realtime.d.ts"])
def test_static_files_are_found(name, settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    assert finders.find(f"grip_rest_framework/{name}") == str(FOLDER / name)
