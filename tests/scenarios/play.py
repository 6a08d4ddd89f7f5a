"""Plays scenarios side by side: most of their time is waiting."""

from concurrent.futures import ThreadPoolExecutor

from scenarios import SCENARIOS

AT_ONCE = 12


def play(name, stage):
    """Return the transcript of one scenario, on names of its own."""
    own = stage.fresh()
    try:
        return own.clean(SCENARIOS[name](own))
    finally:
        own.close()


def start_all(stage, pool, names=None):
    """Return the future transcript of each scenario."""
    return {name: pool.submit(play, name, stage) for name in names or SCENARIOS}


def new_pool():
    return ThreadPoolExecutor(AT_ONCE, "scenario")
