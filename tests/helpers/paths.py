"""Where the project and its sample photographs lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COFFEE = ROOT / "samples" / "coffee.jpg"
CAT = ROOT / "samples" / "cat.jpg"
