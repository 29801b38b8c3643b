"""The `halfbyte` command: one file per subcommand, errors as one sentence, no traceback for a user's mistake."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from .demo import demo
from .doctor import doctor
from .generate import generate
from .inspect import inspect
from .quantize import quantize
from .tune import tune

app = typer.Typer(
    name="halfbyte",
    help="Low-bit inference for diffusers pipelines: 4-bit layers and planned feature reuse, on GPU and CPU.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (demo, inspect, quantize, generate, tune, doctor):
    app.command()(command)


def main() -> None:
    """Entry point; exits 0, 1 after a one-sentence error, or 130 after Ctrl-C."""
    try:
        app()
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; nothing was left half-written")
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        Console(stderr=True, highlight=False).print(f"[red]error:[/red] {error}")
        sys.exit(1)
