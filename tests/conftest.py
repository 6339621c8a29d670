"""What every test run needs: pytest-tornado, loaded by hand.

Its entry point imports pkg_resources, which setuptools no longer ships, and would end any pytest
run before it began. It uses only ``parse_version`` of it, which ``packaging`` has too (setup.cfg
keeps the entry point from being loaded).
"""

import os
import sys
import types

import hypothesis
from packaging.version import parse

try:
    import pkg_resources  # noqa: F401
except ImportError:
    shim = types.ModuleType("pkg_resources")
    shim.parse_version = parse
    sys.modules["pkg_resources"] = shim

# An example may take as long as it takes: hypothesis's own limit of 200 ms is for idle machines.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Nodes that tests start beside the shared engine leave this machine's firewall and that engine's
# networks alone; tests of these have engine and network namespace of their own.
os.environ.setdefault("IMAGEPOOL_BUILD_NETWORK", "open")

pytest_plugins = [
    "pytest_tornado.plugin",
    "tests.figures",
    "tests.leaks.plugin",
    "tests.system.fixtures",
]
