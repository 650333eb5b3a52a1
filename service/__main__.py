"""`python -m service` is `reelfind`."""

from service.cli import main

main()
