"""How many commands and labels a build may have by the operator's word; what is absurd for any
pool, the types of a request say.
"""

from protocol.api.route import ApiSettings
from protocol.errors import Invalid
from protocol.model.request import BuildRequest


def check_counts(request: BuildRequest, limits: ApiSettings, prefix: str = "recipe.") -> None:
    """Raises Invalid where there are too many; `prefix`: of the path of `commands`."""
    for field, count, most in (
        (f"{prefix}commands", len(request.recipe.commands), limits.command_limit),
        ("guidance.labels", len(request.guidance.labels), limits.label_limit),
    ):
        if count > most:
            raise Invalid(f"{field} has {count} entries", field=field, expected=f"at most {most}")
