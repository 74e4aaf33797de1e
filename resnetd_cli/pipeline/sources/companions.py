"""Files that systems and programs keep beside people's own: hidden files, thumbnails, recycle bins, lock files.

One rule for every walk through folders. It judges names alone; whoever names such a file means it.
"""

from __future__ import annotations

import re

_NAMES = frozenset(
    {
        # macOS: resource forks in zip archives, what it lays on other systems' disks, a folder's own icon
        "__macosx",
        "network trash folder",
        "temporary items",
        "icon\r",
        # Windows
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$recycle.bin",
        "recycler",
        "system volume information",
        # network drives: Synology, QNAP, NetApp
        "@eadir",
        "#recycle",
        "#snapshot",
        "@recycle",
        "@recently-snapshot",
        "~snapshot",
        # file systems and Python
        "lost+found",
        "__pycache__",
    }
)
"""In lower case."""
# Owner files of Office (`~$x`), Syncthing's downloads on Windows, autosaves and backups of editors (`#x#`, `x~`),
# files that a program has not finished.
_FORMS = re.compile(r"(?!\.\.?\Z)\..*|~\$.*|~syncthing~.*|#.*#|.*~|.*\.partial", re.DOTALL)


def is_companion(name: str) -> bool:
    """Tell from a file's or a folder's own name whether it is one that people did not put there."""
    return _FORMS.fullmatch(name) is not None or name.lower() in _NAMES
