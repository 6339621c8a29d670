"""The node's settings, each with its unit. `config/node.toml` shows the same, and a test
compares the two.
"""

from typing import Annotated, Literal

from msgspec import Meta

from protocol.model.request import Label
from protocol.program.settings import ProgramSettings

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID"),
    "KILL",  # the supervisor ends what a command left behind
    "SYS_CHROOT",  # bootstrapping a system in a folder
)
"""What root in a container may do by default: what installing packages takes, without CAP_."""


BuildNetwork = Literal["auto", "none", "internet", "open"]


class NodeSettings(ProgramSettings, frozen=True):
    """What an operator can set on a node, beyond what all programs have."""

    listen: str = "127.0.0.1:8090"  # HOST:PORT to serve on; port 0 picks one
    transfer_listen: str = ""  # HOST:PORT for artifacts without TLS; empty: one above pool_listen
    ticket_life: Annotated[float, Meta(gt=0)] = 10.0  # seconds that a ticket for one is good for
    engine: str = "docker"  # what runs the commands: docker, or dummy (plays scripts, for tests)
    base_image: str = "codersos/linux-image-creator"  # for builds that name no image
    slots: Annotated[int, Meta(ge=0, le=10_000)] = 1  # builds at the same time
    priority: Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)] = 0  # higher is favoured
    labels: tuple[Label, ...] = ()  # what builds may ask for
    schedulers: tuple[str, ...] = ()  # URLs of schedulers to register with, beyond those on the LAN
    scheduler_networks: tuple[str, ...] = ("private",)  # words and networks: where others may be
    join: str = ""  # token of the pool to join (imagepool invite); of no use once it is joined
    register_every: Annotated[float, Meta(gt=0)] = 10.0  # seconds between registrations
    waiting_limit: Annotated[int, Meta(ge=0)] = 16  # direct builds that may wait for a slot
    cpus: Annotated[float, Meta(ge=0)] = 0  # processors a build may use; 0: all there are
    memory: Annotated[int, Meta(gt=0)] = 4 << 30  # bytes a build may use
    swap: Annotated[int, Meta(ge=0)] = 0  # bytes of swap a build may use beside its memory
    processes: Annotated[int, Meta(gt=1)] = 4096  # processes and threads a build may have
    open_files: Annotated[int, Meta(ge=64)] = 16384  # files a process of a build may have open
    file_size: Annotated[int, Meta(ge=1 << 20)] = 64 << 30  # bytes of any file a build writes
    build_network: BuildNetwork = "auto"  # what builds reach: none, internet, open (all), auto
    build_networks_allowed: tuple[str, ...] = ()  # IPv4 networks they reach beside the internet
    dockerfiles: bool = False  # whether builds may have a Dockerfile, whose steps may do more
    time_limit: Annotated[float, Meta(gt=0)] = 4 * 3600.0  # seconds a build may take
    log_limit: Annotated[int, Meta(gt=0)] = 1 << 30  # bytes of a build's log
    result_files: Annotated[int, Meta(gt=0)] = 1000  # files that the paths of a build may name
    outbox_files: Annotated[int, Meta(ge=0)] = 100_000  # files in the zip of a build's outbox
    outbox_size: Annotated[int, Meta(ge=0)] = 64 << 30  # bytes that these may have, unpacked
    disk_reserve: Annotated[int, Meta(ge=0)] = 1 << 30  # bytes that must be free to take a build
    disk_floor: Annotated[int, Meta(ge=0)] = 256 << 20  # bytes free; below, the largest build ends
    disk_check: Annotated[float, Meta(gt=0)] = 1.0  # seconds between looks at the disk
    build_disk: Annotated[int, Meta(ge=0)] = 0  # bytes a build may write; 0: what there is
    keep: Annotated[float, Meta(gt=0)] = 7 * 86400.0  # seconds that logs and artifacts are kept
    record_keep: Annotated[float, Meta(gt=0)] = 7 * 86400.0  # seconds that it is known how it ended
    key_keep: Annotated[float, Meta(gt=0)] = 86400.0  # seconds that a repeated key gives the same
    image_keep: Annotated[float, Meta(gt=0)] = 7 * 86400.0  # seconds that unused images are kept
    clean_every: Annotated[float, Meta(gt=0)] = 60.0  # seconds between looks for what is old
    drain_limit: Annotated[float, Meta(ge=0)] = 60.0  # seconds that builds have to end, on SIGTERM
    fetch_limit: Annotated[int, Meta(gt=0)] = 1 << 20  # bytes of a command given by URL
    fetch_timeout: Annotated[float, Meta(gt=0)] = 30.0  # seconds that fetching one may take
    download_limit: Annotated[int, Meta(gt=0)] = 64 << 30  # bytes of an input or base given by URL
    download_timeout: Annotated[float, Meta(gt=0)] = 3600.0  # seconds that fetching one may take
    fetch_networks: tuple[str, ...] = ("public", "private")  # words and networks: whence to fetch
    secrets_folder: str = "/dev/shm"  # where builds' secrets are while they run; in memory only
    capabilities: tuple[str, ...] = CAPABILITIES  # what root in a container may do
    busybox: str = "/bin/busybox"  # static busybox that runs the commands in any image
    engine_check: Annotated[float, Meta(gt=0)] = 5.0  # seconds between looks at engine and disk
