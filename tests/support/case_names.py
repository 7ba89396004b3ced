"""Names of parametrized cases that can be asked for again, as the mutation run does."""


def spelled(value: object) -> str:
    r"""Spell a value without backslashes: pytest escapes those anew each time it collects in one process.

    Sets have no order of their own, and names must be the same in every test process.
    """
    return ascii(sorted(value, key=str) if isinstance(value, set) else value).replace("\\", "/")
