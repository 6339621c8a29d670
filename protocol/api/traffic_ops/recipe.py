"""From a request for an ISO to a build, as pure translation.

The build's one command is `make_iso.sh` beside this module; all that differs between requests are
the files that it is given. Each build has a container, and so a copy of the OS version, of its own.
"""

from collections.abc import Iterable
from importlib.resources import files as resources

from protocol.api.traffic_ops import files
from protocol.api.traffic_ops.settings import TrafficOpsSettings
from protocol.api.traffic_ops.wanted import Wanted
from protocol.model.recipe import Command, InputFile, PathsOutput, Recipe, StreamOutput, TextContent
from protocol.model.request import Guidance, Needs, Order

LABEL = "traffic-ops/iso"
"""The label that says what the ISO is called that a build has kept."""
_HASH = "password-hash"
"""Names a secret that nothing reads: so the hash is masked also where it stands alone."""
COMMAND = "make the ISO"

_SCRIPT = resources(__package__).joinpath("make_iso.sh").read_text(encoding="utf-8")


def to_order(wanted: Wanted, settings: TrafficOpsSettings, name_servers: Iterable[str]) -> Order:
    """The build of this ISO: streamed past everybody's disk, or else kept for a time."""
    version = settings.os_versions[wanted.directory]
    texts = {
        "network.cfg": files.network(wanted, name_servers),
        "mgmt_network.cfg": files.management(wanted),
        "disk.cfg": files.disk(wanted),
    }
    kept = () if wanted.stream else (f"/made/{wanted.iso}",)
    recipe = Recipe(
        commands=(Command(COMMAND, text=_SCRIPT, arguments=(version.folder, *kept)),),
        base=version.base,
        inputs=tuple(
            InputFile(f"ks_scripts/{name}", TextContent(text)) for name, text in texts.items()
        ),
        output=PathsOutput(kept) if kept else StreamOutput(wanted.iso, pipe=True),
    )
    guidance = Guidance(
        needs=Needs(labels=version.labels, network=False, time_limit=settings.time_limit),
        labels={} if wanted.stream else {LABEL: wanted.iso},
        note=f"ISO created [ {wanted.directory} ] for {wanted.fqdn}",
        keep=settings.keep,
    )
    hashed = files.hashed(wanted.password)
    return Order(recipe, guidance, {files.PASSWORD: files.password(hashed), _HASH: hashed})
