"""What the operator of a node does not let builds do, whoever asks for it."""

from node.config import NodeSettings
from protocol.errors import Denied
from protocol.model.recipe import DockerfileBase
from protocol.model.request import BuildRequest


def check_allowed(request: BuildRequest, settings: NodeSettings) -> None:
    """Raises Denied, naming the field."""
    if isinstance(request.recipe.base, DockerfileBase) and not settings.dockerfiles:
        raise Denied(
            "builds of a Dockerfile are not allowed on this node",
            field="recipe.base",
            expected="another base, or a node with the setting `dockerfiles = true`",
        )
