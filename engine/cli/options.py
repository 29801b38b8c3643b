"""Options and loading that several subcommands share."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

PipelineFolder = Annotated[Path, typer.Argument(help="A diffusers pipeline folder (model_index.json, safetensors).")]
RecipeName = Annotated[str, typer.Option("--recipe", "-r", help="A recipe by name; see docs/recipes.md.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
CacheOption = Annotated[
    str | None, typer.Option("--cache", "-c", help="interval:2, steps:0,3,7, gate:0.1, or the fraction of steps to compute, e.g. 0.4.")
]
CallOption = Annotated[str, typer.Option("--call", help='Further pipeline call arguments as JSON, e.g. \'{"guidance_scale": 2.0}\'.')]


def open_pipeline(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """The pipeline in `folder`, its files checked first; the libraries' own bars and notes stay out of the command's output."""
    import diffusers
    import transformers

    from ..checkpoint import load_pipeline

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers' own argument names, which a user here never typed
        return load_pipeline(folder, dtype)


def call_arguments(call: str, prompt: list[str] | None, class_label: list[int] | None) -> dict[str, Any]:
    """Pipeline call arguments from the options; raises ValueError when `call` is not a JSON object."""
    try:
        arguments = json.loads(call or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"--call needs a JSON object; {call!r} is not JSON ({error})") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"--call needs a JSON object; {type(arguments).__name__} came")
    arguments |= {"prompt": list(prompt)} if prompt else {}
    arguments |= {"class_labels": list(class_label)} if class_label else {}
    return arguments


def parse_cache(cache: str | None) -> str | float | None:
    """A fraction as a number, anything else as it is written."""
    try:
        return float(cache) if cache is not None else None
    except ValueError:
        return cache
