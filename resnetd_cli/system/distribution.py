"""Which distribution is installed, `resnetd` or `resnetd-lite`, and how to install a missing package."""

from __future__ import annotations

from importlib.util import find_spec

LITE = "resnetd-lite"
"""The distribution with neither torch nor timm. Both own this package, so that only one can be installed."""
_LITE_EXTRAS = ("heif", "openvino", "socks")


def is_lite() -> bool:
    """Return whether `resnetd-lite` is installed."""
    from importlib import metadata  # only errors need it

    try:
        metadata.distribution(LITE)
    except metadata.PackageNotFoundError:
        return False
    return True


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return find_spec(package) is not None


def how_to_install(extra: str | None = None) -> str:
    """Return the command that installs what `resnetd` needs, or what one of its extras does."""
    lite = is_lite()
    if lite and extra in _LITE_EXTRAS:
        return f"pip install '{LITE}[{extra}]'"
    full = f"pip install 'resnetd[{extra}]'" if extra else "pip install resnetd"
    return f"pip uninstall {LITE}, then {full}" if lite else full
