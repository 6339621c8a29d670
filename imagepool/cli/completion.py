"""`completion`: what makes a shell complete our commands and options; click has the scripts."""

import click
from click.shell_completion import get_completion_class

from imagepool.cli.connect import as_json as json_flag

_VARIABLE = "_IMAGEPOOL_COMPLETE"


@click.command(
    epilog="""\b
Examples:
  imagepool completion bash > /etc/bash_completion.d/imagepool
  imagepool completion zsh > ~/.zfunc/_imagepool
  imagepool completion fish > ~/.config/fish/completions/imagepool.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_flag
def completion(shell: str, as_json: bool) -> None:
    """Print what makes SHELL complete commands and options. The folder of the file must be there,
    and for zsh be in fpath before compinit is called.
    """
    from imagepool.cli import cli
    from imagepool.cli.watch import print_json

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "imagepool", _VARIABLE).source()
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
