"""`backup`: what a scheduler must have to go on elsewhere, copied while it runs: store, key, the
pool's authority, tokens and users, the audit log. Not uploads, and nothing that it makes anew.
"""

import os
import shutil
from pathlib import Path

import click

from imagepool.cli.connect import as_json as json_flag
from imagepool.cli.exits import USAGE, Failure
from imagepool.cli.watch import print_json
from protocol.errors import NotFound, PoolError


@click.command(epilog="\b\nExample:\n  imagepool backup /srv/backup/$(date +%F)")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--data", metavar="FOLDER", help="The scheduler's data folder.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="TOML file with settings."
)
@json_flag
def backup(target: Path, data: str | None, config: Path | None, as_json: bool) -> None:
    """Copy what the scheduler must have into the new folder TARGET, also while it runs.

    To restore, on this machine or another one: stop the scheduler, put the copy in the place of its
    data folder, start it. Nodes believe it as before, and tell it what it missed.
    """
    from protocol.program.settings import data_folder, load
    from scheduler.config import SchedulerSettings
    from scheduler.stores.sqlite import FILE

    try:
        settings = load(SchedulerSettings, "scheduler", file=config, flags={"data": data})
        folder = data_folder(settings, "scheduler")
        if not (folder / FILE).exists():
            raise NotFound(f"there is no {FILE} in {folder}", field="data")
        target.mkdir(mode=0o700)
        files = _copied(folder, target)
    except PoolError as error:
        raise Failure(error, USAGE, as_json=as_json) from error
    except OSError as error:
        raise Failure(
            PoolError(f"{error.filename}: {error.strerror}"), USAGE, as_json=as_json
        ) from error
    if as_json:
        print_json({"folder": str(target), "files": files})
    else:
        click.echo(f"{target}: {', '.join(files)}")


def _copied(folder: Path, target: Path) -> list[str]:
    """Names of the files that are in the target now. Raises OSError, PoolError."""
    from protocol.program.identity import KEY
    from protocol.storage import database
    from protocol.trust import accounts, audit, membership
    from scheduler.pool import authority
    from scheduler.stores import sqlite

    names = [KEY, *_files(folder, authority.FOLDER), *_files(folder, membership.FOLDER)]
    for name in names:
        for parent in reversed(Path(name).parents):
            (target / parent).mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(folder / name, target / name)
        os.chmod(target / name, 0o600)
    for name in (sqlite.FILE, accounts.FILE, audit.FILE):
        if (folder / name).exists():
            database.backup(folder / name, target / name)
            names.append(name)
    return sorted(names)


def _files(folder: Path, name: str) -> list[str]:
    """Those below a folder that need not be there; what is being written is passed over."""
    found = (path for path in (folder / name).rglob("*.*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)
