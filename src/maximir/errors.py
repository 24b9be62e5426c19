"""The exceptions that users meet: bad input, told in one sentence."""


class MaximirError(Exception):
    """Bad input or a request that failed. The message says what, where and what to do."""


class UsageError(MaximirError):
    """A request that makes no sense, found before any work. The command exits with 2, as for bad options."""
