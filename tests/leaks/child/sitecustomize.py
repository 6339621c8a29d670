"""Imported by Python itself in every program that a test starts, as its PYTHONPATH says: notes the
secrets that the program meets in a file of the tests' own.
"""

import base64
import importlib.util
import json
import os
from pathlib import Path


def _note(secret: str | bytes, what: str) -> None:
    lines = [secret] if isinstance(secret, bytes) else secret.splitlines()
    test = os.environ.get("PYTEST_CURRENT_TEST", "no test").rpartition(" (")[0]
    for line in lines:
        data = line if isinstance(line, bytes) else line.encode("utf-8", "surrogateescape")
        coded = base64.b64encode(data).decode()
        note = {"secret": coded, "what": what, "text": isinstance(line, str), "test": test}
        if (data, what) not in _noted:
            _noted.add((data, what))
            handle = os.open(_place, os.O_WRONLY | os.O_APPEND)
            os.write(handle, json.dumps(note).encode() + b"\n")
            os.close(handle)


_noted: set[tuple[bytes, str]] = set()
_place = os.environ.get("SECRETS_OF_TESTS", "")

if os.path.exists(_place):
    _file = Path(__file__).parents[1] / "sources.py"
    _spec = importlib.util.spec_from_file_location("sources_of_secrets", _file)
    assert _spec is not None
    assert _spec.loader is not None
    _sources = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_sources)
    _sources.install(_note)
