"""The pages on htmx and React, done in a browser."""

import re
import subprocess
import tarfile

import pytest

from client_sites import ClientSite
from servers import ROOT
from test_realtime_js_in_chromium import until

pytestmark = [pytest.mark.chromium, pytest.mark.npm]

LIBRARIES = {
    "htmx.org@2.0.4": "dist/htmx.js",
    "react@18.3.1": "umd/react.development.js",
    "react-dom@18.3.1": "umd/react-dom.development.js",
}

REACT = """<!doctype html><meta charset="utf-8"><main></main>
<script>
window.signals = [];
const fetchAsItIs = window.fetch;
window.fetch = (url, options) => {
  if (String(url).includes("/stream/")) signals.push(options.signal);
  return fetchAsItIs(url, options);
};
</script>
<script src="/files/react.development.js"></script>
<script src="/files/react-dom.development.js"></script>
<script type="importmap">{"imports": {"react": "/files/react.js"}}</script>
<script type="module">
import {StrictMode, createElement} from "react";
import {Orders} from "/files/Orders.js";
window.root = ReactDOM.createRoot(document.querySelector("main"));
root.render(createElement(StrictMode, null, createElement(Orders)));
</script>"""

REACT_MODULE = """
export const {StrictMode, createElement, useMemo, useSyncExternalStore} = React;
"""


def blocks(page, language):
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("recipes")
    with ClientSite(directory) as site:
        subprocess.run(
            ["npm", "pack", "--silent", *LIBRARIES],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=120,
        )
        for package, path in LIBRARIES.items():
            name, _, version = package.partition("@")
            with tarfile.open(directory / f"{name}-{version}.tgz") as archive:
                content = archive.extractfile(f"package/{path}").read()
            (site.files / path.rpartition("/")[2]).write_bytes(content)
        yield site


def check_list(site, page):
    """The items of the page follow the rows of the server, as text."""

    def shows(expected):
        texts = "[...document.querySelectorAll('li')].map((item) => item.textContent)"
        until(page, f"{texts}.includes({expected!r})")

    pk = site.create(status="<b>new</b>")
    shows(f"{pk}: <b>new</b>")
    site.change(pk, status="paid")
    shows(f"{pk}: paid")
    site.delete(pk)
    until(page, f"!document.body.textContent.includes('{pk}: ')")
    assert not page.execute_script("return document.querySelector('li b')")


def test_the_page_on_htmx_shows_what_is(site, driver):
    [html] = blocks("docs/how-to/htmx.md", "html")
    [template] = blocks("docs/how-to/htmx.md", "django")
    (site.files / "rows.html").write_text(template)
    first = site.create(status="there before")
    (site.files / "htmx.html").write_text(
        '<!doctype html><meta charset="utf-8"><script src="/files/htmx.js"></script>'
        + html
    )
    driver.get(f"{site.url}/files/htmx.html")
    until(driver, f"document.body.textContent.includes('{first}: there before')")
    check_list(site, driver)
    driver.get("about:blank")


def test_the_page_on_react_shows_what_is(site, driver):
    for block in blocks("docs/how-to/react.md", "js"):
        name = re.match(r"// (\S+\.js)\n", block).group(1)
        (site.files / name).write_text(block)
    (site.files / "react.js").write_text(REACT_MODULE)
    (site.files / "react.html").write_text(REACT)
    first = site.create(status="there before")
    driver.get(f"{site.url}/files/react.html")
    until(driver, f"document.body.textContent.includes('{first}: there before')")
    check_list(site, driver)
    # StrictMode mounts twice, and only one is left; none after the component is gone.
    open_streams = "signals.filter(({aborted}) => !aborted).length"
    assert driver.execute_script(f"return {open_streams}") == 1
    driver.execute_script("root.unmount()")
    until(driver, f"{open_streams} === 0")
    driver.get("about:blank")
