"""From a request for an ISO to a build, as pure translation.

The build's one command is `make_iso.sh` beside this module; all that differs between requests are
the files that it is given. Each build has a container, and so a copy of the OS version, of its own.
"""

from collections.abc import Iterable
from importlib.resources import files as resources

from protocol.api.traffic_ops import files
from protocol.api.traffic_ops.settings import OsVersion
from protocol.api.traffic_ops.wanted import Wanted
from protocol.model.recipe import Command, InputFile, Recipe, StreamOutput, TextContent
from protocol.model.request import Guidance, Needs, Order

LABEL = "traffic-ops/iso"
"""The label that says what a build's ISO is called."""
COMMAND = "make the ISO"

_SCRIPT = resources(__package__).joinpath("make_iso.sh").read_text(encoding="utf-8")


def to_order(
    wanted: Wanted, version: OsVersion, name_servers: Iterable[str], *, keep: float
) -> Order:
    """The build of this ISO: streamed past everybody's disk, or else kept for so many seconds."""
    texts = {
        "network.cfg": files.network(wanted, name_servers),
        "mgmt_network.cfg": files.management(wanted),
        "disk.cfg": files.disk(wanted),
    }
    recipe = Recipe(
        commands=(Command(COMMAND, text=_SCRIPT, arguments=(version.folder,)),),
        base=version.base,
        inputs=tuple(
            InputFile(f"ks_scripts/{name}", TextContent(text)) for name, text in texts.items()
        ),
        output=StreamOutput(wanted.iso, pipe=wanted.stream),
    )
    guidance = Guidance(
        needs=Needs(network=False),
        labels={LABEL: wanted.iso},
        note=f"ISO created [ {wanted.directory} ] for {wanted.fqdn}",
        keep=keep,
    )
    return Order(recipe, guidance, {files.PASSWORD: files.password(wanted.password)})
