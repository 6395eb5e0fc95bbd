"""The one mechanism of both programs: lazy command groups, the common flags, errors and exit codes.

Never imports a command's module before that command is called, and nothing heavier than click itself. A command is

    @command("status", has_json=True, example="blossom-edge status --data-dir edge/")
    @click.option("--data-dir", metavar="FOLDER", help="Folder of this device.")
    def status(out: Output, data_dir: str | None) -> None:
        '''Show the last round of this device.'''

Exit codes: 0 ok, 1 failed, 2 usage, 3 not reachable, 4 hardware, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import click

from blossom_edge.console.output import Output
from blossom_edge.core.errors import BlossomError, ConfigError

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}

EXTRAS = {
    "torch": "torch",
    "amqtt": "gateway",
    "onnxruntime": "onnx",
    "onnx": "export",
    "onnxscript": "export",
    "rich": "demo",
    "seglearn": "demo",
}
"""Optional packages, and the extra of this project that installs each."""


class Command(click.Command):
    """A command with the common flags and an example in its help."""

    def __init__(
        self, *args: Any, example: str = "", has_json: bool = False, streams: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {**SETTINGS, **self.context_settings}
        self.example = example
        self.has_json = has_json
        if has_json:
            what = "one JSON object a line" if streams else "one JSON object and nothing else"
            self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=f"Print {what}."))
        self.params += [
            click.Option(["-v", "--verbose"], is_flag=True, help="Log more, and show the trace of a fault."),
            click.Option(["--quiet"], is_flag=True, help="Print results and errors only."),
        ]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options, line by line as it stands."""
        formatter.write_paragraph()
        formatter.write("Example:\n")
        for line in self.example.strip().splitlines():
            formatter.write(f"  {line}\n")


def command(
    name: str, *, example: str, has_json: bool = False, streams: bool = False, log_level: str = "warning"
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a command of `function(out, **options)`, which may return an exit code.

    example: command lines shown in the help as they stand, a long one goes on after a backslash; has_json: it takes
    --json, as every command that shows something does; streams: with --json it prints many objects, one a line;
    log_level: what goes to stderr without -v and --quiet (a service says "info").
    """

    def decorate(function: Callable[..., int | None]) -> Command:
        @functools.wraps(function)
        def run_command(*, verbose: bool, quiet: bool, as_json: bool = False, **options: Any) -> int | None:
            from blossom_edge.console.logs import configure_logging

            out = click.get_current_context().ensure_object(Output)
            out.as_json, out.quiet, out.verbose = as_json, quiet, verbose
            configure_logging("debug" if verbose else "error" if quiet else log_level)
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                status = _answered(function, out, options)
            out.finish()
            return status

        return click.command(name, cls=Command, example=example, has_json=has_json, streams=streams)(run_command)

    return decorate


def _answered(function: Callable[..., int | None], out: Output, options: Mapping[str, Any]) -> int | None:
    """Call a command; input that ends at one of its questions is a wrong use of it, no failure."""
    try:
        return function(out, **options)
    except click.Abort as error:
        click.echo(err=True)  # the question's line has no end yet
        if isinstance(error.__context__, EOFError):  # click hides it from the trace, and keeps it
            skips = any(given.name == "yes" for given in click.get_current_context().command.params)
            hint = "answer on a terminal, or give --yes" if skips else "answer on a terminal"
            raise ConfigError("usage", "the input ended at a question, expected an answer", hint=hint) from error
        raise


class LazyGroup(click.Group):
    """A group that knows its commands as text: name -> (`module:attribute`, short help). `--help` loads none."""

    def __init__(
        self, name: str, *, help: str, targets: Mapping[str, tuple[str, str]], version: str | None = None
    ) -> None:
        super().__init__(name, help=help, context_settings=dict(SETTINGS), no_args_is_help=False)
        self.targets = dict(targets)
        if version is not None:
            click.version_option(version, prog_name=name, message="%(prog)s %(version)s")(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help when called with nothing at all."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were given."""
        return list(self.targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is no such name."""
        if cmd_name not in self.targets:
            return None
        module, _, attribute = self.targets[cmd_name][0].partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
        if not isinstance(loaded, click.Command):
            raise TypeError(f"{self.targets[cmd_name][0]} is no command")
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one gets the nearest name."""
        name = args[0]
        if name not in self.targets and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.targets, n=1)
            expected = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(self.targets)}"
            ctx.fail(f"no command {name!r}, {expected}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from their short helps alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in self.targets.items()])


def run(group: click.Group, args: Sequence[str] | None = None, *, environ: Mapping[str, str] | None = None) -> int:
    """Run a program to its end and return its exit code; every failure is said in one line on stderr.

    With --json a failure is one object on stdout too: {"error": {"id", "message", "hint"}}.
    """
    words = list(sys.argv[1:] if args is None else args)
    flags = words[: words.index("--")] if "--" in words else words
    out = Output(
        as_json="--json" in flags,
        quiet="--quiet" in flags,
        verbose="-v" in flags or "--verbose" in flags,
        environ=os.environ if environ is None else environ,
    )
    try:
        status = _run_reporting(group, words, out)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone (`... | head`): no fault of ours, nobody to tell
        _silence(sys.stdout)
        return 1
    return status


def _run_reporting(group: click.Group, words: list[str], out: Output) -> int:
    try:
        status = group.main(words, prog_name=group.name, standalone_mode=False, obj=out)
        return status if isinstance(status, int) else 0
    except BlossomError as error:
        out.failure(error.error_id, str(error), hint=error.hint)
        return error.exit_status
    except click.exceptions.Abort as error:
        out.end_progress()
        return INTERRUPTED_STATUS if isinstance(error.__context__, KeyboardInterrupt) else 1
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else group.name
        out.failure("usage", error.format_message().rstrip("."), hint=f"see {where} --help")
        return USAGE_STATUS
    except BrokenPipeError:
        raise
    except SystemExit as stop:  # click ends so when stdout is gone
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:  # outermost: a fault of ours, or a package or disk that is not there
        return _report_unexpected(error, out)


def _report_unexpected(error: Exception, out: Output) -> int:
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        hint = f"pip install 'blossom-edge[{EXTRAS[error.name]}]'"
        out.failure("package-missing", f"this needs the package {error.name}, which is not installed", hint=hint)
        return 1
    if isinstance(error, OSError) and error.filename is not None:
        out.failure("disk-failed", f"{error.filename}: {error.strerror}", hint="check the path and its permissions")
    else:
        hint = "" if out.verbose else "-v shows the trace; please report it"
        out.failure("unexpected", f"unexpected {type(error).__name__}: {error}", hint=hint)
    if out.verbose:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return 1


def _silence(stream: IO[str]) -> None:
    """Point the stream's descriptor at nothing, so that the interpreter's last flush cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
