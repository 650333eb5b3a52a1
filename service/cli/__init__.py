"""The `reelfind` command: one module per subcommand; `app.py` assembles them."""


def main() -> None:
    """Run the `reelfind` command."""
    # Imported here, so that importing one subcommand does not load all of them.
    from service.cli.app import app

    app()
