"""What all tests share; nothing here may import Keras."""

from __future__ import annotations

import gc
import os

from hypothesis import HealthCheck, settings

# A slow machine is no fault of the code. In CI every run draws the same examples, so that it says
# something about the change; elsewhere each run draws new ones, and fewer of them.
settings.register_profile(
    "adaptlr",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=100 if "CI" in os.environ else 25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("adaptlr")


def pytest_addoption(parser):
    said = "quick: what `make test` runs; rest: what it leaves to `make test-rest`"
    parser.addoption("--part", choices=("quick", "rest"), help=said)


def pytest_collection_modifyitems(config, items):
    part = config.getoption("part")
    if part is None:
        return
    seen, parts = set(), {"quick": [], "rest": []}
    for item in items:
        slow, later, alike = map(item.get_closest_marker, ("slow", "rest", "alike"))
        rule = alike and (alike.args or item.nodeid.partition("[")[0])
        if slow or later or (rule and rule in seen):
            parts["rest"].append(item)
        else:
            parts["quick"].append(item)
            seen.add(rule)
    items[:] = parts.pop(part)
    (left_out,) = parts.values()
    config.hook.pytest_deselected(items=left_out)


# A full collection of garbage reads all that was ever imported and left behind, a gigabyte after a
# hundred fits. Where the machine has put these pages aside, one took up to half a minute. So what
# has outlived a test is not looked at again.
def pytest_collection_finish(session):
    _set_aside()


def pytest_runtest_logfinish(nodeid, location):
    _set_aside()


def _set_aside():
    gc.collect()
    gc.freeze()
