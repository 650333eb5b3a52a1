"""`python -m model.cli` is `reelfind-model`; torchrun starts it so."""

from __future__ import annotations

from model.cli import main

if __name__ == "__main__":
    main()
