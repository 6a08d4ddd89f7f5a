"""The local proxy and Pushpin show their clients the same."""

import json
from pathlib import Path

import pytest
from play import new_pool, start_all
from stage import running

from scenarios import SCENARIOS

TRANSCRIPTS = Path(__file__).parent / "transcripts"


@pytest.fixture(
    scope="module",
    params=["localproxy", pytest.param("pushpin", marks=pytest.mark.pushpin)],
)
def transcripts(request, tmp_path_factory):
    """The future transcript of each scenario asked for, all played side by side."""
    wanted = [
        item.callspec.params["name"]
        for item in request.session.items
        if getattr(item, "function", None) is test_clients_see_what_pushpin_shows_them
        and item.callspec.params["transcripts"] == request.param
    ]
    directory = tmp_path_factory.mktemp(request.param)
    with running(request.param, directory) as stage, new_pool() as pool:
        yield start_all(stage, pool, wanted)


@pytest.mark.parametrize("name", SCENARIOS)
def test_clients_see_what_pushpin_shows_them(transcripts, name):
    golden = json.loads((TRANSCRIPTS / f"{name}.json").read_text())
    assert transcripts[name].result() == golden


def test_every_transcript_has_a_scenario():
    assert {path.stem for path in TRANSCRIPTS.glob("*.json")} == set(SCENARIOS)
