"""`lowprec config`: the configuration in full, explained; or what a file says, checked."""

from __future__ import annotations

import click


@click.command()
@click.argument("file", required=False)
@click.option("--check", is_flag=True, help="Print nothing but mistakes; the exit code tells.")
def config(file: str | None, check: bool) -> None:
    """Print the default configuration as YAML, every key explained.

    With FILE: print that configuration in full, or all its mistakes with their lines (exit code
    2). A YAML file of Neural Compressor 1.x is translated; what has no counterpart is named on
    stderr. The file itself is never changed.
    """
    from lowprec.config import Config
    from lowprec.config_page import commented_yaml

    notes: list[str] = []
    if file is None:
        settings = Config()
    else:
        from lowprec.compat import read_config

        settings, notes = read_config(file)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if not check:
        click.echo(commented_yaml(settings), nl=False)
