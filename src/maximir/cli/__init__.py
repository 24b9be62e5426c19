"""The `maximir` command: one module per subcommand; shared options in `options`."""

from maximir.cli.app import main

__all__ = ["main"]
