"""`python -m service` runs the `reelfind` command."""

from service.cli import main

main()
