"""What the kit says when it is asked for something that it cannot do. pytest shows `str(error)`: the hint is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blossom_edge.core.errors import ConfigError


class KitError(ConfigError):
    """A ConfigError whose text ends with the next step."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; {self.hint}" if self.hint else text

    def line(self) -> str:
        """The error as one line, the next step once."""
        return f"{' '.join(str(self).split())} [{self.error_id}]"


@contextmanager
def hints_shown() -> Iterator[None]:
    """Turn every ConfigError of the block into one that shows its hint."""
    try:
        yield
    except KitError:
        raise
    except ConfigError as error:
        raise KitError(error.error_id, str(error), hint=error.hint) from None
