"""resnetd: what is in this picture?

The command line is `resnetd`; the same work from Python:

    import resnetd_cli as resnetd

    classifier = resnetd.load("resnet50d")
    for result in classifier.predict(["dog.jpg"]):
        print(result)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnetd_cli.classifier import Classifier as Classifier
    from resnetd_cli.loading import load as load
    from resnetd_cli.pipeline.options import Runtime as Runtime

__all__ = ["Classifier", "Runtime", "__version__", "load"]

_LAZY = {
    "Classifier": "resnetd_cli.classifier",
    "Runtime": "resnetd_cli.pipeline.options",
    "load": "resnetd_cli.loading",
}


def __getattr__(name: str) -> Any:
    # PEP 562: `import resnetd_cli` stays free of torch, timm and numpy until the first real use.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
