"""How this program is, for whoever watches it: `/healthz`, `/readyz`, `/metrics`. The port is
`extras["health"]`.
"""

from prometheus_client.exposition import choose_encoder

from protocol.api.access import Permission
from protocol.api.base import Handler
from protocol.api.route import Route
from protocol.program.metrics import Health

_AGAIN = "5"  # seconds after which it is worth asking again
_READING = {"GET", "HEAD"}


class _Watched(Handler):
    """What all three have in common."""

    @property
    def health(self) -> Health:
        """How the program is."""
        health: Health = self.context.extras["health"]
        return health


class Alive(_Watched):
    """Whether the program lives: it does where this is answered."""

    async def get(self) -> None:
        """Who it is, and since when, in seconds."""
        program = self.health.program
        self.reply(
            {
                "status": "ok",
                "id": program.id,
                "name": program.name,
                "role": program.role,
                "version": program.version,
                "uptime_s": round(self.health.uptime(), 3),
            }
        )

    head = get


class Ready(_Watched):
    """Whether the program can do its work."""

    async def get(self) -> None:
        """503 where it cannot, with every reason in words."""
        problems = await self.unless_gone(self.health.problems())
        if problems:
            self.set_header("Retry-After", _AGAIN)
        status = "not ready" if problems else "ready"
        self.reply({"status": status, "problems": problems}, 503 if problems else 200)

    head = get


class Metrics(_Watched):
    """Every metric, for Prometheus."""

    async def get(self) -> None:
        """In the text format, or OpenMetrics where that is asked for."""
        encode, media_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", media_type)
        self.finish(encode(self.health.registry))

    head = get


ROUTES = (
    Route("/healthz", Alive, dict.fromkeys(_READING, Permission.HEALTH)),
    Route("/readyz", Ready, dict.fromkeys(_READING, Permission.HEALTH)),
    Route("/metrics", Metrics, dict.fromkeys(_READING, Permission.METRICS)),
)
