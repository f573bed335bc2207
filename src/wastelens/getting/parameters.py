"""What a run logs of the settings that photos were asked for with."""

from __future__ import annotations

from wastelens.config.base import flatten
from wastelens.config.getting import GettingConfig
from wastelens.web.addresses import locate
from wastelens.web.errors import Unfetchable

_ADDRESSES = ("_url", ".url")


def logged_parameters(config: GettingConfig) -> dict[str, object]:
    """The settings, without what a URL may hold beside host and path, and without who asks."""
    settings = flatten(config)
    del settings["contact"]
    return {name: shown for name, value in settings.items() if (shown := _shown(name, value)) is not None}


def _shown(name: str, value: str) -> str | None:
    """A setting's value as it may be read by others; None: an address that cannot be taken apart."""
    if not name.endswith(_ADDRESSES):
        return value
    try:
        return locate(value).shown
    except Unfetchable:  # said when it is asked for
        return None
