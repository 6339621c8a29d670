"""imagepool: a pool of machines that builds operating-system images behind one URL."""

from protocol import VERSION as __version__

__all__ = ["__version__"]
