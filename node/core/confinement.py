"""Whether a container is as confined as builds are to be, by what it sees of itself.

The engine is asked for some of this and left its defaults for the rest (seccomp, what of the kernel
is hidden or read-only); but an engine can be set otherwise, and so one container is asked at start.
"""

from collections.abc import Collection, Iterator

_READ_ONLY = ("/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_HIDDEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")

PROBE = f"""\
#!/toiso/.imagepool/in/busybox sh
busybox=/toiso/.imagepool/in/busybox
$busybox grep -E '^(CapPrm|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
$busybox cat /proc/self/mounts
for path in {" ".join((*_READ_ONLY, *_HIDDEN))}; do
  [ -e $path ] && echo "there $path"
done
true
"""
"""What is run in it."""

CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905
"""Names by bit, as linux/capability.h has them."""


def problem(said: str, capabilities: Collection[str]) -> str:
    """Why the container that said this is not confined; empty where it is. `capabilities`: those
    that it may have.
    """
    return "; ".join(_problems(said.splitlines(), capabilities))


def _problems(lines: list[str], capabilities: Collection[str]) -> Iterator[str]:
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for field in ("CapPrm", "CapBnd"):
        if more := sorted(set(granted(status.get(field, "f" * 16))) - set(capabilities)):
            yield f"it has the capabilities {' '.join(more)} ({field})"
    if status.get("NoNewPrivs") != "1":
        yield "programs in it may gain privileges (NoNewPrivs)"
    if status.get("Seccomp") != "2":
        yield "its system calls are not filtered (Seccomp)"
    options = {
        parts[1]: parts[3].split(",") for line in lines if len(parts := line.split(" ")) == 6
    }
    there = {line.removeprefix("there ") for line in lines}
    for path in ("/sys", "/proc/sys", *sorted(there.intersection(_READ_ONLY))):
        if "ro" not in options.get(path, ()):
            yield f"{path} is not read-only"
    for path in sorted(there.intersection(_HIDDEN)):
        if path not in options:
            yield f"{path} is not hidden"


def granted(mask: str) -> tuple[str, ...]:
    """The names in a mask of hexadecimal digits, as /proc/PID/status has it."""
    bits = int(mask, 16)
    return tuple(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1)
