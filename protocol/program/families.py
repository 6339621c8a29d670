"""The API families that every program serves: a line for each."""

from protocol.api.image_creator import handlers as image_creator
from protocol.api.native import blobs, verbs
from protocol.api.native import builds as native
from protocol.api.people import routes as people
from protocol.api.traffic_ops import handlers as traffic_ops
from protocol.program import health

AMONG_PROGRAMS = (
    *image_creator.ROUTES,
    *verbs.ROUTES,
    *native.ROUTES,
    *blobs.ROUTES,
)
"""What the programs of a pool ask each other by."""
ROUTES = (
    *AMONG_PROGRAMS,
    *people.ROUTES,
    *traffic_ops.ROUTES,
    *health.ROUTES,
)
"""What clients ask by."""
