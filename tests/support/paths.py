"""Where the repository is."""

from pathlib import Path

#: the repository's root
ROOT = Path(__file__).resolve().parents[2]
