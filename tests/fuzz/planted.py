"""Targets with a bug planted in them: what the fuzzer must find, or it finds nothing."""


def deep(data: bytes) -> None:
    """Five bytes must be right, one after the other: chance alone takes 2 to the 40 tries, and who
    sees that each one leads further takes thousands.
    """
    if not data.startswith(b"p"):
        return
    if data[1:2] != b"o":
        return
    if data[2:3] != b"o":
        return
    if data[3:4] != b"l":
        return
    if data[4:5] == b"\x80":
        raise IndexError("planted")


def hungry(data: bytes) -> None:
    """Takes as much memory as a length in its input says."""
    if data[:1] == b"L" and len(data) > 4:
        bytearray(int.from_bytes(data[1:5]))


def endless(data: bytes) -> None:
    """Never comes back."""
    while data[:1] == b"e":
        pass


TARGETS = {target.__name__: target for target in (deep, hungry, endless)}
