"""Everything that programs write while the tests run is searched for every secret that was used.

`sources` has what makes and takes secrets and is listened to, in the tests' process and in every
program that they start (`child`); a test that makes one of its own says `used`. `outputs` has what
is heard of all that is written; who reads a program in a way of their own says `wrote`. `files` has
what is looked for in data folders, `search` how one looks for thousands of secrets at once, and
`plugin` does so after the last test.
"""

import base64
import json
import os
import tempfile
from pathlib import Path

from tests.leaks.search import Secret, Written

FILE = "SECRETS_OF_TESTS"
"""Variable that names the file where programs that tests start note the secrets that they meet."""
CHILD = Path(__file__).parent / "child"
"""First in their PYTHONPATH, so that they do."""

known: dict[Secret, str] = {}
"""What tests in this process used -> the first that did."""
written = Written()
"""What was heard in this process."""
_met: set[bytes] = set()  # what has a name already


def used(secret: str | bytes, what: str = "secret") -> None:
    """From now on this must not have been written anywhere, before or after."""
    lines = [secret] if isinstance(secret, bytes) else secret.splitlines()
    for line in lines:
        _know(Secret.of(line, what), now())


def wrote(text: str | bytes, where: str) -> None:
    """A program wrote this."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    written.add(data, where, now())


def now() -> str:
    """The test that runs."""
    return os.environ.get("PYTEST_CURRENT_TEST", "no test").rpartition(" (")[0] or "no test"


def python_path(*places: Path | str) -> str:
    """A PYTHONPATH for a program of a test: these places, and what hears of its secrets."""
    first = (str(CHILD),) if FILE in os.environ else ()
    return os.pathsep.join((*first, *map(str, places)))


def listen_to_children() -> None:
    """Have programs that are started from now on note what they meet."""
    handle, path = tempfile.mkstemp(prefix="secrets-of-tests-")
    os.close(handle)
    os.environ[FILE] = path
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = python_path(*filter(None, before))


def hear_children() -> None:
    """Take what they noted, and forget the file."""
    if path := os.environ.pop(FILE, ""):
        for line in Path(path).read_text().splitlines():
            note = json.loads(line)
            data = base64.b64decode(note["secret"])
            _know(Secret.of(data, note["what"], text=note["text"]), note["test"])
        Path(path).unlink()


def _know(secret: Secret | None, test: str) -> None:
    """By the first name that it was given."""
    if secret is not None and secret.data not in _met:
        _met.add(secret.data)
        known[secret] = test
