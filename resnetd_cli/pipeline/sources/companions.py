"""Recognise files that systems and programs create: hidden files, thumbnails, recycle bins, lock files.

Walks through folders skip them, by name alone. A companion file that the user names explicitly is read.
"""

from __future__ import annotations

import re

_NAMES = frozenset(
    {
        # macOS: resource forks in zip archives, folders on network disks, a folder's custom icon
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
# unfinished files.
_FORMS = re.compile(r"(?!\.\.?\Z)\..*|~\$.*|~syncthing~.*|#.*#|.*~|.*\.partial", re.DOTALL)


def is_companion(name: str) -> bool:
    """Return whether the name of a file or folder is that of a companion: hidden, or created by a program."""
    return _FORMS.fullmatch(name) is not None or name.lower() in _NAMES
