"""UnusableError: why a measured run cannot be predicted; the reason is counted, never hidden."""


class UnusableError(Exception):
    """The message is the reason in words, the same for all rows that have it."""
