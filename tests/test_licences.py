"""Every dependency's licence is listed, and one that goes with ours."""

import re

import pytest

from tests.licences import listed, locked, stated

FINE = {
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"),
    *("MPL-2.0", "LGPL-2.1-or-later"),  # used as they are, by importing
}
"""What we may depend on."""


def test_every_dependency_is_listed() -> None:
    """In the order of requirements.lock; `python -m tests.licences` writes the list."""
    assert list(listed()) == locked()


@pytest.mark.parametrize("package", locked())
def test_a_licence_is_as_the_package_states_it(package) -> None:
    """Where it is installed here, which not every platform has all of."""
    said = stated(package)
    assert listed()[package] == said or said is None


def test_licences_go_with_ours() -> None:
    """Of several that must all be kept, each; of several to choose from, one."""
    for package, licence in listed().items():
        for one in licence.split(" AND "):
            assert FINE & set(re.split(r" OR ", one)), (package, licence)
