"""Passwords within the addresses of databases and servers: found, so that they are not shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

_SECRET = re.compile("passw|pwd", re.IGNORECASE)  # as in password, sslpassword and passwd
HIDDEN = "***"  # as SQLAlchemy shows those before the host


def passwords_in(address: URL) -> list[str]:
    """Those before its host, and among its options, where databases' drivers take them too."""
    options = [value for name, values in address.normalized_query.items() if _SECRET.search(name) for value in values]
    return [str(password) for password in (address.password, *options) if password]


def without_passwords(address: str) -> str:
    """An address as it may be shown; what is no address stays as it is."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(address)
    except (ArgumentError, ValueError):  # a folder
        return address
    for name in parsed.query:
        if _SECRET.search(name):
            parsed = parsed.update_query_dict({name: HIDDEN})
    return parsed.render_as_string(hide_password=True)
