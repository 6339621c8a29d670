"""A LAN of three machines and what starts programs on it, for every test that asks for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.lan import Lan, a_lan
from tests.system.pool import PoolOnLan


@pytest.fixture
def lan() -> Iterator[Lan]:
    """A scheduler's machine and two nodes'."""
    with a_lan("control", "anvil", "forge") as lan:
        yield lan


@pytest.fixture
def pool(lan: Lan, tmp_path: Path) -> PoolOnLan:
    """What starts programs on it; they end with the LAN."""
    return PoolOnLan(tmp_path)
