"""What travels with the programs and is not code of theirs: example settings, the base image's
recipe.

A package, so that it is found from a checkout and from an installed wheel alike
(docs/adr/0002-data-in-a-package.md).
"""

from importlib.resources import files
from importlib.resources.abc import Traversable


def resource(*path: str) -> Traversable:
    """A file or folder below this package."""
    return files(__name__).joinpath(*path)
