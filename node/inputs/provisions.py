"""What an attempt's container sees beside its work folder: the build's inputs and secrets. Made
before it starts, removed after it.
"""

from collections.abc import Mapping

from node.container import Place
from node.core.masking import Mask
from node.engines.base import Mount
from node.files.secrets_folder import SECRETS, VARIABLE
from node.inputs.gathering import InputFolder
from protocol.model.build import Build
from protocol.model.request import contents, given_secrets


class Provisions:
    """Of one attempt. Every method but the constructor may be called from any thread."""

    def __init__(self, place: Place, build: Build) -> None:
        self._attempt = f"{build.id}.{build.attempt}"
        self._secrets = place.secrets
        self._values = given_secrets(build.request, place.secrets_of(build.id))
        self._needed = any(True for _ in contents(build.request))
        self.inputs = InputFolder(place.inputs / self._attempt)
        self.mask = Mask(self._values.values())

    def begin(self) -> None:
        """Make the folders. Raises Unavailable where there is none for secrets, OSError."""
        if self._needed:
            self.inputs.begin()
        if self._values:
            self._secrets.put(self._attempt, self._values)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What the container has to see."""
        inputs = self.inputs.mounts if self._needed else ()
        return (*inputs, *(self._secrets.mounts(self._attempt) if self._values else ()))

    @property
    def environment(self) -> Mapping[str, str]:
        """What the container's environment says of them."""
        return {VARIABLE: SECRETS} if self._values else {}

    def secret(self, name: str) -> str:
        """The value of a secret that the request names."""
        return self._values[name]

    def usage(self) -> int:
        """Bytes of the inputs, on disk."""
        return self.inputs.usage() if self._needed else 0

    def forget_secrets(self) -> None:
        """Delete them, whatever still sees their folder. Raises OSError."""
        if self._values:
            self._secrets.remove(self._attempt)

    def remove(self) -> None:
        """Delete the rest, when no container sees it any more. Raises OSError."""
        if self._needed:
            self.inputs.remove()
