"""`python -m resnetd_cli`, and the `resnetd` command."""

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _start_in_utf8()
    try:
        from resnetd_cli.cli import signals

        signals.install()
        from resnetd_cli.system.quiet import own_stderr

        own_stderr(sys.argv)
        from resnetd_cli.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt as stop:
        code = getattr(stop, "exit_code", 130)
    except (ImportError, OSError, MemoryError, RuntimeError) as error:
        # Not even the code that tells of errors could be loaded: too little memory, too few open files.
        code = 1
        message = error or type(error).__name__
        _tell(f"error: resnetd cannot start: {message}\nhint: check the limits that ulimit -a shows\n")
    # Worker threads may be inside a long native call when Ctrl-C comes; a normal exit would wait for them.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _start_in_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale is another, so that names are the bytes on disk.

    In `C` and Latin-1 locales Python would read names in one encoding, and what is written is UTF-8.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def _tell(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


if __name__ == "__main__":
    main()
