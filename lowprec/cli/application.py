"""The group of commands, and what becomes of their errors: one line each, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from lowprec.cli.bench import bench
from lowprec.cli.compare import compare
from lowprec.cli.config import config
from lowprec.cli.doctor import doctor
from lowprec.cli.inspect import inspect
from lowprec.cli.quantize import quantize
from lowprec.cli.run import run as run_command
from lowprec.cli.tune import tune
from lowprec.errors import ConfigError, LowprecError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="lowprec", prog_name="lowprec")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def application(context: click.Context, debug: bool) -> None:
    """Low precision (int8) for neural networks on CPUs."""
    context.obj = debug
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (quantize, tune, run_command, compare, bench, inspect, config, doctor):
    application.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Return the exit code of the command line `arguments`; errors are printed as one line."""
    # The flag may stand before or after the command's name.
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        result = application.main(words, prog_name="lowprec", standalone_mode=False)
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "lowprec"
        return _fail(f"{error.format_message()} See `{command} --help`.")
    except click.ClickException as error:
        return _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # a reader such as `head` went away; nothing is left to say
        return 0
    except LowprecError as error:
        if debug:
            raise
        if isinstance(error, ConfigError) and error.details:
            return _fail(error.headline, error.details)
        return _fail(str(error))
    except MemoryError as error:
        if debug:
            raise
        return _fail(f"out of memory: {error}; the model or its data need more than there is")
    except Exception as error:
        if debug:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"unexpected {reason}; --debug shows where")
    return result if isinstance(result, int) else 0


def _fail(message: str, details: Sequence[str] = ()) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    for line in details:
        click.echo(f"  {line}", err=True)
    return BAD_INPUT
