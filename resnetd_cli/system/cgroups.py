"""Read the CPU and memory quotas of Linux's control groups, versions 1 and 2, which containers set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def read(controller: str, name: str) -> Iterator[str]:
    """Yield the contents of a control file in this process's group and in each parent group that has it.

    Args:
        controller: `cpu` or `memory`.
        name: the file's name.
    """
    for folder in _folders(controller):
        with suppress(OSError, ValueError):
            yield (folder / name).read_text(encoding="ascii").strip()


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders that may hold a controller's files, in versions 1 and 2.

    In a container the group's path is often the host's, of which only the end is mounted, as the root.
    """
    paths = {path for controllers, path in _memberships() if controllers in ("", controller)}
    for top in (ROOT, ROOT / controller, ROOT / f"{controller},{controller}acct"):
        yield top
        yield from dict.fromkeys(
            top / part.relative_to("/")
            for path in sorted(paths)
            for part in (path, *path.parents)
            if part != PurePosixPath("/")
        )


def _memberships() -> Iterator[tuple[str, PurePosixPath]]:
    """Yield controller (empty in version 2) and path of each of this process's groups."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path.startswith("/") and ".." not in path:  # `..`: a group outside the container
            for controller in controllers.split(","):
                yield controller, PurePosixPath(path)
