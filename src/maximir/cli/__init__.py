"""The `maximir` command: a module for each subcommand, options that they share in `options`."""

from maximir.cli.app import main

__all__ = ["main"]
