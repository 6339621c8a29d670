"""What a join token brings, and what it does not."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Denied
from protocol.program.identity import key_of
from protocol.program.joining import Applicant
from protocol.trust import token
from protocol.trust.certificates import SCHEDULER
from tests.trust.test_pool import a_member, a_pool, in_state

pytestmark = pytest.mark.gen_test(timeout=60)


@pytest.mark.parametrize("rule", ["token", "approve"])
async def test_a_token_makes_no_scheduler(tmp_path: Path, rule: str) -> None:
    """Neither of a key that is new nor of one that is a node's: who holds the token could give
    orders to every node.
    """
    async with a_pool(tmp_path, admission=rule) as scheduler:
        door = scheduler.parts.door
        invited = token.read(door.invitation().token)
        async with a_member(tmp_path, scheduler) as node:
            if rule == "token":
                await in_state(scheduler, node, "ready")
            for key in (Ed25519PrivateKey.generate(), key_of(tmp_path / node.parts.node.name)):
                applicant = Applicant(key, SCHEDULER, "x")
                with pytest.raises(Denied, match="admits nodes"):
                    await applicant.join(scheduler.members_url, invited)
