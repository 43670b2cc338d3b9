"""The `lookalike` command."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

# Each command's module, name and summary, which is also the beginning of its own help. A module
# is imported when its command is called, so that `lookalike --help` does not wait for torch.
_COMMANDS = {
    "up": ("search_api.cli.serving", "up", "Prepare everything and serve."),
    "serve": ("search_api.cli.serving", "serve", "Serve an existing index."),
    "search": (
        "search_api.cli.search",
        "search",
        "Show the class and the nearest neighbours of a picture.",
    ),
    "classify": ("search_api.cli.classify", "classify", "Classify files and folders of pictures."),
    "classifier": (
        "search_api.cli.classifier",
        "classifier",
        "Show or fit the classifier of the store's labels.",
    ),
    "index": ("search_api.cli.index.group", "index", "Build, inspect and maintain the index."),
    "add": ("search_api.cli.pictures", "add", "Add pictures to the store."),
    "delete": ("search_api.cli.pictures", "delete", "Delete pictures from the store."),
    "purge": ("search_api.cli.pictures", "purge", "Delete pictures in the trash for good."),
    "model": (
        "search_api.cli.model",
        "model",
        "Import networks of timm and torchvision as models.",
    ),
    "train": (
        "search_api.cli.training",
        "train",
        "Train a model and write its bundle and report.",
    ),
    "shape": ("search_api.cli.shaping", "shape_command", "Shape the embedding of a trained model."),
    "tune": ("search_api.cli.tuning", "tune", "Search for better settings of a recipe."),
    "evaluate": ("search_api.cli.training", "evaluate_command", "Evaluate a model."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        if cmd_name in ("up", "serve"):
            # FAISS reads this when it is loaded: its idle threads should sleep rather than spin on
            # cores that the network and HTTP need.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, _, help_) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", prog_name="lookalike")
def cli() -> None:
    """Visual similarity search: find pictures like this one.

    \b
    Example:
      lookalike up          # then open http://127.0.0.1:8000

    The --help of each command has an example. Options can also be set in the environment, for
    example with LOOKALIKE_DATA, LOOKALIKE_VAR, LOOKALIKE_BUNDLE, LOOKALIKE_PORT or
    LOOKALIKE_SERVER; --help shows the variable of each option.
    """


def main() -> NoReturn:
    """Run the command line. On an error, print one line and exit with 2 for misuse, 1 otherwise."""
    try:
        code = cli.main(prog_name="lookalike", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lookalike"
        _fail(f"{where}: {error.format_message().rstrip('.')} (see {where} --help)", 2)
    except click.ClickException as error:
        _fail(f"lookalike: {error.format_message()}", 2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        _fail(f"lookalike: {error}; allow this process more memory", 1)
    except Exception as error:
        from search_api.problems import exhausted, meaning

        known = meaning(error)
        if known is not None:
            _fail(f"lookalike: {exhausted(error) or error}", known.exit_code)
        if not isinstance(error, (ValueError, OSError, RuntimeError)):
            raise
        _fail(f"lookalike: {error}", 2 if isinstance(error, ValueError) else 1)


def _fail(message: str, code: int) -> NoReturn:
    from search_api.text import displayed

    click.echo(displayed(" ".join(message.split())), err=True)
    sys.exit(code)
