"""Errors of the web client."""

from __future__ import annotations

from wastelens.errors import InputError, WastelensError


class Unfetchable(WastelensError):  # noqa: N818  a state of the world, not a fault of the input
    """A URL that gives nothing usable.

    Attributes:
        reason: a few words, without the URL.
        permanent: asking again is useless, as for a page that is gone, a refused address or a file that is too large;
            otherwise a later run may succeed.
        setting: the one that would allow it with another value; empty if none would.
        status: the HTTP status if that is the reason, otherwise 0.
    """

    def __init__(self, place: str, reason: str, *, permanent: bool, setting: str = "", status: int = 0) -> None:
        self.reason = reason
        self.permanent = permanent
        self.setting = setting
        self.status = status
        super().__init__(f"{place}: {reason}")


class NoNetwork(InputError):  # noqa: N818  as above
    """No host at all can be reached.

    Attributes:
        fact: which host could not be reached and why, for callers that continue without it.
    """

    def __init__(self, host: str, reason: str) -> None:
        self.fact = f"{host}: {reason}"
        super().__init__(
            f"No network: '{host}' cannot be reached ({reason}). Connect to the internet, set HTTPS_PROXY if you use "
            "a proxy, and run the command again; everything fetched so far is kept."
        )


class Closed(WastelensError):  # noqa: N818  not an error
    """Raised in threads that still fetch or wait when the ``Web`` is closed."""


class TemporaryFailure(Exception):  # noqa: N818  never leaves the package
    """A failed attempt; the next one may succeed.

    Attributes:
        reason: a few words.
        unreached: no host answered, as without a network.
        hung: it took a whole timeout.
    """

    def __init__(self, reason: str, *, unreached: bool = False, hung: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unreached = unreached
        self.hung = hung
