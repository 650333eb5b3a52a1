"""The `reelfind` command: one module a command, put together in `app.py`."""


def main() -> None:
    """The `reelfind` command."""
    # Here, so that importing one command does not load all of them.
    from service.cli.app import app

    app()
