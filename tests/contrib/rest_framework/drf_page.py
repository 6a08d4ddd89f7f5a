"""What docs/how-to/drf.md shows, with the models of the tests."""

import re

from tests.servers import ROOT


def shown(file):
    """The names that the page's snippet of this file defines."""
    page = (ROOT / "docs/how-to/drf.md").read_text()
    (code,) = re.findall(rf"^```python\n# {file}\n(.*?)^```$", page, re.DOTALL | re.M)
    names = {"__name__": f"tests.{file.removesuffix('.py').replace('/', '.')}"}
    exec(code.replace("from shop.", "from tests.shop."), names)
    return names
