"""`backup`: what a scheduler must have to go on elsewhere, copied while it runs."""

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
    """Copy the scheduler's store, its identity, who may call it, what they did, and the pool's
    authority into the new folder TARGET, also while it runs.

    To restore: stop the scheduler, put the files of the copy in place of those in its data folder
    (removing those that end in -wal and -shm), start it. Nodes then tell it what it missed.
    """
    from protocol.program.identity import KEY
    from protocol.program.settings import data_folder, load
    from protocol.storage import database
    from scheduler.config import SchedulerSettings
    from scheduler.stores.sqlite import FILE

    try:
        settings = load(SchedulerSettings, "scheduler", file=config, flags={"data": data})
        folder = data_folder(settings, "scheduler")
        if not (folder / FILE).exists():
            raise NotFound(f"there is no {FILE} in {folder}", field="data")
        target.mkdir(mode=0o700)
        database.backup(folder / FILE, target / FILE)
        shutil.copyfile(folder / KEY, target / KEY)
        os.chmod(target / KEY, 0o600)
        files = [FILE, KEY, *_people(folder, target), *_pool(folder, target)]
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


def _people(folder: Path, target: Path) -> list[str]:
    """Copy who may call, and what they did; the names of the files. Raises PoolError."""
    from protocol.storage import database
    from protocol.trust import accounts, audit

    found = [name for name in (accounts.FILE, audit.FILE) if (folder / name).exists()]
    for name in found:
        database.backup(folder / name, target / name)
    return found


def _pool(folder: Path, target: Path) -> list[str]:
    """Copy the pool's authority and our certificates; the names of the folders. Raises OSError."""
    from protocol.trust import membership
    from scheduler.pool import authority

    found = [name for name in (authority.FOLDER, membership.FOLDER) if (folder / name).is_dir()]
    for name in found:
        shutil.copytree(folder / name, target / name)  # with their modes
        os.chmod(target / name, 0o700)
    return found
