"""The command line. Each command's module is imported when it is called, and what speaks to a pool
only when that is spoken to, so that help and completion are quick.
"""

import importlib
from typing import Any

import click

from protocol import VERSION

COMMANDS = {
    "Builds": {
        "build": ("build", "Build what a file or flags say, and watch it."),
        "log": ("builds", "Print the log of a build."),
        "ls": ("builds", "List builds, newest first."),
        "show": ("builds", "Show a build: commands, artifacts, history."),
        "explain": ("builds", "Say why a build waits, or what happened to it."),
        "download": ("builds", "Download what a build made."),
        "cancel": ("changes", "End a build."),
        "retry": ("changes", "Build again what a build was asked for."),
        "pin": ("changes", "Keep a build until it is unpinned."),
        "unpin": ("changes", "Keep a build no longer than others."),
        "delete": ("changes", "Forget a build, its log and artifacts."),
    },
    "The pool": {
        "status": ("nodes", "Say whether the pool is ready."),
        "nodes": ("nodes", "List the nodes of the pool."),
        "cordon": ("nodes", "Give a node no new builds."),
        "uncordon": ("nodes", "Give a node builds again."),
        "drain": ("nodes", "Give a node no new builds, and wait until it has none."),
    },
    "Members of the pool": {
        "invite": ("members", "Print what brings another machine into the pool."),
        "admit": ("members", "Let a node in that waits for a yes."),
        "revoke": ("members", "Put a node out of the pool."),
        "authority": ("members", "Show the pool's certificate authority, or replace it."),
    },
    "Who may": {
        "token": ("people", "Make, list and revoke tokens."),
        "user": ("people", "Add, list and remove users with passwords."),
    },
    "Programs": {
        "up": ("programs", "Run a scheduler and one node on this machine."),
        "scheduler": ("programs", "Run a scheduler: the one URL of a pool."),
        "node": ("programs", "Run a node: builds images in containers."),
        "doctor": ("doctor", "Say what stands in the way of a program on this machine."),
        "config": ("config", "Show settings, and where each value comes from."),
        "backup": ("backup", "Copy the scheduler's store while it runs."),
        "completion": ("completion", "Print a shell's completion script."),
    },
}
"""Section -> command -> module in this package that has it under its own name, and the line in the
list of commands.
"""


class _Commands(click.Group):
    """Finds commands by name and imports what they need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if name in section:
                module = importlib.import_module(f"imagepool.cli.{section[name][0]}")
                command: click.Command = getattr(module, name)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  imagepool up
  imagepool build -c 'echo hello' --output none
  imagepool build build.yaml -o hello.iso
  imagepool ls --status running

Exit codes: 0 done, 1 the build did not succeed, 2 wrong usage, settings or request, 3 the pool does
not answer, 130 interrupted.""",
)
@click.version_option(VERSION, prog_name="imagepool", help="Show the version and exit.")
def cli() -> None:
    """A pool of machines that builds operating-system images behind one URL.

    Commands find the pool by --url, the variable IMAGEPOOL_URL, then mDNS. With --json they print
    JSON: one document, or one in each line where they print as things happen.
    """


def main(arguments: list[str] | None = None) -> Any:
    """The console script."""
    return cli.main(args=arguments, prog_name="imagepool")
