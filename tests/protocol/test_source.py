"""What `GET /source` gives away: the source, and nothing that an operator put beside it."""

import io
import zipfile
from pathlib import Path

from protocol.program.source import _files, source_zip


def test_the_zip_is_the_source_and_always_the_same() -> None:
    """Code, supervisor, page, recipe, examples; byte for byte the same each time."""
    data = source_zip()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
    assert {
        "imagepool/demo.py",
        "node/files/supervisor.sh",
        "scheduler/web/page.css",
        "config/node.toml",
        "config/base-image/build.sh",
        "config/base-image/system/etc/systemd/network/80-dhcp.network",
    } <= names
    assert source_zip() == data


def test_keys_and_local_settings_stay_at_home(tmp_path) -> None:
    """Whatever lies in a package's folder: keys, tokens, settings of this machine, compiled
    files.
    """
    package = tmp_path / "config"
    for path in (
        "node.toml",
        "local.toml",
        "key.pem",
        ".env",
        "base-image/build.sh",
        "base-image/key.pem",
        "base-image/.secret",
        "__pycache__/x.pyc",
        ".git/config.py",
    ):
        file = package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    found = {name for name, _ in _files(Path(package), "config")}
    assert found == {"config/node.toml", "config/base-image/build.sh"}
