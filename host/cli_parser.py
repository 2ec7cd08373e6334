"""What the parser says: a mistake is one line, and paragraphs of help fill the terminal."""

import functools
import inspect
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Commands"]

PROGRAM = "deepseek-host"

# Typer has Click inside, or uses the one that is installed; both have this class above that one.
UsageError: Any = typer.BadParameter.__bases__[0]


class Commands(TyperGroup):
    """A group of commands whose parser ends in one line on stderr and exit code 2.

    The line names the option, its value and the command's help. `errors` sends mistakes of options'
    values here, too. Every other end is that of Typer.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in self.commands.values():
            command.help = _filled(command.help or "")

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:
        """Run the command that the words name, and exit; without ``standalone_mode`` return."""
        words = sys.argv[1:] if args is None else list(args)
        standalone = settings.get("standalone_mode", True)
        settings["standalone_mode"] = False
        run = functools.partial(super().main, words, *rest, **settings)
        if not standalone:
            return run()
        try:
            code = run()
        except UsageError as error:
            _tell(error, f"{self._path(words)} --help")
            sys.exit(2)
        except typer.Abort:
            sys.exit("Aborted!")
        sys.exit(code if isinstance(code, int) else 0)

    def _path(self, words: Sequence[str]) -> str:
        """Return the command that the words name, without its options."""
        found, commands = [PROGRAM], self.commands
        for word in words:
            if word not in commands:
                break
            commands = getattr(commands[word], "commands", {})
            found.append(word)
        return " ".join(found)


def _tell(error: Any, help_command: str) -> None:
    message = _own_words(error)
    if not message or "\n" in message:  # the help itself, where no command was given
        typer.echo(message, err=True)
        return
    message = message[0].lower() + message[1:].rstrip(".")
    if ";" not in message:
        message += f"{'' if message.endswith('?') else ';'} next: {help_command}"
    typer.echo(f"error: {message}", err=True)


def _own_words(error: Any) -> str:
    """Return what was wrong, with option and value; the parser's own words lack some values."""
    param = getattr(error, "param", None)
    if isinstance(error, typer.BadParameter) and param is None:
        return str(error.message)
    cause = error.__cause__
    if param is not None and hasattr(cause, "errors"):  # of pydantic, which checks for Typer
        wrong = cause.errors()[0]
        for kind, words in (("int", "a whole number"), ("float", "a number")):
            if wrong["type"].startswith(kind):
                return f"{param.opts[0]} must be {words}, not {wrong['input']!r}"
    return str(error.format_message())


def _filled(text: str) -> str:
    """Return a help text with each paragraph on one line."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
