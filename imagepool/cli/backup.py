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
    """Copy the scheduler's store and identity into the new folder TARGET, also while it runs.

    To restore: stop the scheduler, put the files of the copy in place of those in its data folder
    (removing scheduler.db-wal and scheduler.db-shm), start it. Nodes then tell it what it missed.
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
    except PoolError as error:
        raise Failure(error, USAGE, as_json=as_json) from error
    except OSError as error:
        raise Failure(
            PoolError(f"{error.filename}: {error.strerror}"), USAGE, as_json=as_json
        ) from error
    if as_json:
        print_json({"folder": str(target), "files": [FILE, KEY]})
    else:
        click.echo(f"{target}: {FILE}, {KEY}")
