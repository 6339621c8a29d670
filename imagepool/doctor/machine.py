"""What the machine gives a program: its data folder, its ports, its addresses."""

import errno
import os
import pwd
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from imagepool.cli.words import size
from imagepool.doctor.finding import Finding, Subject, fail, in_thread, ok, warn
from imagepool.doctor.sockets import Process, holders, lock_holder
from protocol.errors import Invalid
from protocol.model.networks import LOOPBACK, PRIVATE, reach
from protocol.program import mdns
from protocol.program.admitting import check_reach
from protocol.program.settings import host_and_port, is_loopback
from protocol.trust import accounts

_ROOM = 256 << 20  # bytes; a scheduler refuses uploads that would leave less


async def data_folder(subject: Subject) -> tuple[Finding, ...]:
    """Whether the program can keep there what must outlive it, and has room to."""
    return await in_thread(_data_folder, subject)


def _data_folder(subject: Subject) -> tuple[Finding, ...]:
    name, folder = "data folder", subject.folder
    place = next(each for each in (folder, *folder.parents) if _is_there(each))
    if not place.is_dir():
        return (fail(name, f"{place} is no folder", "--data FOLDER names another one"),)
    owner, me = _user(place.stat().st_uid), _user(os.geteuid())
    room = os.statvfs(place)
    if room.f_flag & os.ST_RDONLY:
        found = f"{folder}: the file system is mounted read-only"
        return (fail(name, found, f"mount -o remount,rw, or --data FOLDER; it is {place}"),)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        deed = "used" if place == folder else "made"
        found = f"{folder} cannot be {deed} by {me}: {place} belongs to {owner}"
        mend = f"run this, and the program, as {owner}; or --data FOLDER of {me}'s own"
        return (fail(name, found, mend),)
    free = room.f_bavail * room.f_frsize
    made = f"belongs to {owner}" if place == folder else "is made at the first start"
    found = f"{folder} {made}; {size(free)} are free there"
    least = subject.settings.disk_reserve if subject.is_node else _ROOM
    if free < least:
        refused = "build" if subject.is_node else "upload"
        lack = f"{found}, and {size(least)} must be: no {refused} is taken"
        return (fail(name, lack, "make room there, or --data FOLDER on a larger disk"),)
    running = lock_holder(folder / "lock")
    return (ok(name, found + (f"; {running} runs on it" if running else "")),)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # what is above it may not be looked into
        return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


async def ports(subject: Subject) -> tuple[Finding, ...]:
    """Whether the program can listen where it is to, or does already."""
    return await in_thread(_ports, subject)


def _ports(subject: Subject) -> tuple[Finding, ...]:
    running = lock_holder(subject.folder / "lock")
    found = [_port("listen", subject.settings.listen, running)]
    if subject.pool_address:
        found.append(_port("pool_listen", subject.pool_address, running))
    return tuple(found)


def _port(field: str, listen: str, running: Process | None) -> Finding:
    name, flag = field, f"--{field.replace('_', '-')}"
    try:
        host, port = host_and_port(listen, field)
        _try_out(host, port)
    except Invalid as error:
        return fail(name, error.detail, f"{flag} {error.expected}")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(name, flag, listen, port, running)
        words = f"{listen} cannot be had: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM):
            return fail(
                name, words, f"{flag} HOST:PORT with a port from 1024 on, or run it as root"
            )
        here = ", ".join(("127.0.0.1", *mdns.addresses("0.0.0.0")))
        return fail(name, words, f"{flag} with an address of this machine: {here}, or 0.0.0.0")
    return ok(name, f"{listen} is free" if port else f"{listen}: any port that is free")


def _taken(name: str, flag: str, listen: str, port: int, running: Process | None) -> Finding:
    who = holders("tcp", port)
    if running and running.id in {one.id for one in who}:
        return ok(name, f"{listen} is this program's own: {running}")
    if not who and running:
        return ok(name, f"{listen} is taken; {running} runs, and is likely the one")
    words = ", ".join(map(str, who)) or "a process of another user (root sees which)"
    return fail(name, f"{listen} is taken by {words}", f"stop that, or {flag} HOST:PORT elsewhere")


def _try_out(host: str, port: int) -> None:
    """Bind, and let go. Nobody can connect meanwhile. Raises OSError."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tried.bind(address)


async def callers(subject: Subject) -> tuple[Finding, ...]:
    """Whether the program would start, or wants to know first who may call it."""
    name, settings = "who may call", subject.settings
    nobody = await in_thread(_is_empty, subject.folder / accounts.FILE)
    try:
        check_reach(settings, subject.folder, nobody=nobody)
    except Invalid as error:
        return (fail(name, f"it would not start: {error.detail}", error.expected),)
    if is_loopback(host_and_port(settings.listen)[0]):
        return (ok(name, f"only this machine reaches {settings.listen}"),)
    if nobody:
        return (ok(name, f"everybody who reaches {settings.listen}, as {settings.anonymous}"),)
    return (ok(name, f"{settings.listen}: who has a token or a password"),)


def _is_empty(file: Path) -> bool:
    """Whether there is no token and no user. The file is read as it lies there: a program that
    runs may have told it more, but does not run without any.
    """
    if not file.exists() or lock_holder(file.with_name("lock")):
        return not file.exists()
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as opened:
        try:
            ask = "SELECT EXISTS (SELECT 1 FROM tokens) OR EXISTS (SELECT 1 FROM users)"
            return not opened.execute(ask).fetchone()[0]
        except sqlite3.Error:
            return True


async def addresses(subject: Subject) -> tuple[Finding, ...]:
    """Which addresses others would be told."""
    return await in_thread(lambda: tuple(_addresses(subject)))


def _addresses(subject: Subject) -> Iterator[Finding]:
    name, host = "addresses", subject.host
    try:
        found = mdns.addresses(host)
    except OSError as error:
        yield fail(name, f"{host} is not known: {error.strerror}", "--listen with an address")
        return
    if not found:
        words = f"{host}: no address that others could reach"
        yield fail(name, words, "give an interface one (ip address), or name one by --listen")
        return
    listed = ", ".join(found)
    if is_loopback(host):
        words = f"{listed}: only programs of this machine reach it"
        if subject.is_node:
            yield ok(name, words)
        else:
            yield warn(name, words, "for others: imagepool scheduler --listen ADDRESS:8080")
        return
    usual = reach((PRIVATE, LOOPBACK), "node_networks")
    outside = [each for each in found if usual.refusal(ip_address(each))] if subject.is_node else []
    if outside:
        words = f"{listed}; a scheduler does not call {', '.join(outside)} by default"
        yield warn(name, words, "there: node_networks = [..., their network] in its settings")
    else:
        yield ok(name, listed)
