"""Why something from the web is not to be had."""

from __future__ import annotations

from typing import Literal

from wastelens.errors import InputError, WastelensError

Limit = Literal["", "hosts", "max_bytes"]


class Unfetchable(WastelensError):  # noqa: N818  a state of the world, no fault of the input
    """An address that gives nothing that could be used.

    Attributes:
        reason: a few words, without the address.
        lasting: asking again is of no use, as with a page that is gone, a refused address or a file that is too large;
            otherwise the next call may have more luck.
        limit: what the user could set otherwise, and it might be had; empty: nothing.
        status: the HTTP status, where that is the reason; otherwise 0.
    """

    def __init__(self, place: str, reason: str, *, lasting: bool, limit: Limit = "", status: int = 0) -> None:
        self.reason = reason
        self.lasting = lasting
        self.limit = limit
        self.status = status
        super().__init__(f"{place}: {reason}")


class NoNetwork(InputError):  # noqa: N818  as above
    """Nobody at all can be reached.

    Attributes:
        fact: who could not be reached and why, for what goes on without.
    """

    def __init__(self, host: str, reason: str) -> None:
        self.fact = f"{host}: {reason}"
        super().__init__(
            f"No network: '{host}' cannot be reached ({reason}). Connect to the internet, set HTTPS_PROXY if there is "
            "a proxy, and call again; what is there already stays."
        )


class Closed(WastelensError):  # noqa: N818  no error at all
    """Raised in the threads that still fetch or wait when the ``Web`` is closed: nobody wants their answer any more."""


class Unchanged(Exception):  # noqa: N818  never leaves the package
    """The file is still the version that was not to be sent again."""


class Passing(Exception):  # noqa: N818  never leaves the package
    """An attempt failed, and the next one may not.

    Attributes:
        reason: a few words.
        unreached: nobody answered at all, as without a network.
    """

    def __init__(self, reason: str, *, unreached: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unreached = unreached
