"""What a scheduler puts on each attempt that it sends to a node, to know it again: a node can hand
back what it was sent, and nothing that it was not.
"""

import hashlib
import hmac
from typing import Any

import msgspec
from msgspec import Struct

from protocol.model.messages import Forwarded
from protocol.model.request import BuildRequest, Forward


class Seal:
    """Of one scheduler. It outlives its store."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: known to this scheduler only."""
        self._key = hashlib.sha256(b"imagepool seal of attempts\n" + secret).digest()

    def of(self, request: BuildRequest, forward: Forward, node: str) -> str:
        """The seal of an attempt on the node of this id."""
        said = (
            *(forward.id, forward.origin, forward.attempt, node, forward.owner),
            *(forward.path, forward.key, forward.retry_of, _bare(request)),
        )
        packed = msgspec.json.encode(said, order="sorted")
        return hmac.new(self._key, packed, hashlib.sha256).hexdigest()

    def holds(self, whole: Forwarded, node: str) -> bool:
        """Whether this was sent to the node of this id, as it is."""
        expected = self.of(whole.request, whole.forward, node)
        return hmac.compare_digest(expected.encode(), whole.forward.seal.encode())


def _bare(value: Any) -> Any:
    """The value without fields that are as they are by default: a field that a newer version adds
    breaks no seal.
    """
    if isinstance(value, Struct):
        kept = {
            field.encode_name: _bare(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if getattr(value, field.name) != field.default
        }
        tag = type(value).__struct_config__.tag
        return {"": tag, **kept} if tag is not None else kept
    if isinstance(value, tuple | list):
        return [_bare(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _bare(one) for key, one in value.items()}
    return value
