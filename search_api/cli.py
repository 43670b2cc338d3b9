"""The `lookalike` command."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

# Where each command lives. They are imported when called: `--help` should not wait for torch.
_COMMANDS = {
    "up": ("search_api.commands.serving", "up", "Make everything ready and serve."),
    "serve": ("search_api.commands.serving", "serve", "Serve an index that is built already."),
    "search": ("search_api.commands.querying", "search", "Class and neighbours of a picture."),
    "classify": ("search_api.commands.tagging", "classify", "Classes of files and folders."),
    "index": ("search_api.commands.indexing", "index", "Build, look at and verify the index."),
    "add": ("search_api.commands.writing", "add", "Add pictures to the store."),
    "delete": ("search_api.commands.writing", "delete", "Delete pictures from the store."),
    "train": ("search_api.commands.training", "train", "Train a model."),
    "shape": ("search_api.commands.shaping", "shape_command", "Shape a model's embedding."),
    "tune": ("search_api.commands.tuning", "tune", "Search for better settings of a recipe."),
    "evaluate": ("search_api.commands.training", "evaluate_command", "Measure a model."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        if cmd_name in ("up", "serve"):
            # Read when FAISS is loaded: its threads, when they have nothing to do, should sleep
            # rather than spin on the cores that the network and HTTP need.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, _, help_) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lookalike", prog_name="lookalike")
def cli() -> None:
    """Visual similarity search: pictures like this one.

    \b
    Example:
      lookalike up          then open http://127.0.0.1:8000

    Each command has --help with an example. Settings come from options or from the environment:
    LOOKALIKE_DATA, LOOKALIKE_VAR, LOOKALIKE_BUNDLE, LOOKALIKE_HOST, LOOKALIKE_PORT,
    LOOKALIKE_SERVER and those that `lookalike up --help` shows.
    """


def main() -> NoReturn:
    """Run the command line: exit code 2 and one line on stderr for wrong use, 1 for failure."""
    try:
        code = cli.main(prog_name="lookalike", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lookalike"
        _fail(f"{where}: {error.format_message()} (see {where} --help)", 2)
    except click.ClickException as error:
        _fail(f"lookalike: {error.format_message()}", 2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (ValueError, OSError, RuntimeError) as error:
        _fail(f"lookalike: {error}", 2 if isinstance(error, ValueError) else 1)
    except Exception as error:
        from index.archives import (
            SnapshotExistsError,
            SnapshotModelError,
            UnknownSnapshotError,
        )
        from index.catalogue import CatalogueError, ModelChangedError
        from index.neighbours import UnknownIdError
        from index.snapshots import ModelMismatchError, NoGenerationError, SnapshotError
        from index.stores import EngineCannotError, StateGoneError

        wrong_use = (
            NoGenerationError,
            ModelMismatchError,
            ModelChangedError,
            UnknownIdError,
            UnknownSnapshotError,
            SnapshotExistsError,
            SnapshotModelError,
            EngineCannotError,
        )
        if isinstance(error, wrong_use):
            _fail(f"lookalike: {error}", 2)
        if isinstance(error, CatalogueError | SnapshotError | StateGoneError):
            _fail(f"lookalike: {error}", 1)
        raise


def _fail(message: str, code: int) -> NoReturn:
    click.echo(" ".join(message.split()), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
