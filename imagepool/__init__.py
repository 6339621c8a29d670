"""imagepool: a pool of machines that builds operating-system images behind one URL.

`Client` and `AsyncClient` speak to a pool (docs/client.md). They are imported when they are asked
for, so that the command line's help need not wait for them.
"""

from typing import TYPE_CHECKING, Any

from protocol import VERSION as __version__

if TYPE_CHECKING:
    from imagepool.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("AsyncClient", "Client"):
        from imagepool import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
