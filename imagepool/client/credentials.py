"""What a client proves by who it is: a token, given, in the environment, or in a file.

mDNS believes anyone: a token goes only where somebody said in so many words that it is to go.
"""

import os
import re
import stat
from pathlib import Path

from protocol.errors import Invalid

TOKEN = "IMAGEPOOL_TOKEN"
"""The variable that has it."""
_TEXT = re.compile(r"[!-~]{1,512}")


def token_file() -> Path:
    """Where a token is kept for all commands of this person."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "imagepool" / "token"


def token_of(given: str, *, named: bool) -> str:
    """The token to send; empty: none. `named`: whether somebody said where it goes. Raises Invalid
    where it is none, where others can read the file, and where one was given and it is not known
    whom it is for.
    """
    source = "token" if given else TOKEN
    text = given or os.environ.get(TOKEN, "")
    if text and not named:
        raise Invalid(
            "a token is not sent to whoever mDNS finds",
            field=source,
            expected="the URL that it is for, by --url or IMAGEPOOL_URL",
        )
    if not text and named:
        source = str(token_file())
        text = _read(token_file())
    if text and not _TEXT.fullmatch(text):
        raise Invalid(f"{source} is no token", field=source, expected="one line of letters")
    return text


def _read(path: Path) -> str:
    """The file's text; empty where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1024).strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}", field=str(path), expected="a token"
        ) from error
    if mode & 0o077:
        raise Invalid(f"others can read {path}", field=str(path), expected=f"chmod 600 {path}")
    return text
