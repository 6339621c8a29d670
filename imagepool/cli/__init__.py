"""The command line. Each command's module is imported when it is called, so that `--help` is
quick.
"""

import importlib
from typing import Any

import click

from protocol import VERSION

COMMANDS = {
    "up": ("programs", "Run a scheduler and one node on this machine."),
    "scheduler": ("programs", "Run a scheduler: the one URL of a pool."),
    "node": ("programs", "Run a node: builds images in containers."),
    "build": ("builds", "Build what FILE says, and watch it."),
    "status": ("builds", "Show a build, or all, newest first."),
    "log": ("builds", "Print the log of a build."),
    "download": ("builds", "Download what a build made."),
    "cancel": ("builds", "End a build."),
    "nodes": ("nodes", "List the nodes of the pool."),
    "cordon": ("nodes", "Give a node no new builds."),
    "uncordon": ("nodes", "Give a node builds again."),
    "drain": ("nodes", "Give a node no new builds, and wait until it has none."),
    "backup": ("backup", "Copy the scheduler's store while it runs."),
}
"""Command -> module in this package that has it under its own name, and the line in the list of
commands.
"""


class _Commands(click.Group):
    """Finds commands by name and imports what they need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"imagepool.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="imagepool")
def cli() -> None:
    """A pool of machines that builds operating-system images behind one URL.

    Start with `imagepool up`, then `imagepool build FILE`.

    Exit codes: 0 done, 1 the build failed, 2 wrong usage or settings, 3 the pool does not answer.
    """


def main(arguments: list[str] | None = None) -> Any:
    """The console script."""
    return cli.main(args=arguments, prog_name="imagepool")
