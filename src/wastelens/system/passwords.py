"""Passwords in the addresses of databases and servers: found, so that they are never shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import URL

_SECRET = re.compile("passw|pwd", re.IGNORECASE)  # as in password, sslpassword and passwd
HIDDEN = "***"  # as SQLAlchemy hides a password before the host


def passwords_in(address: URL) -> list[str]:
    """Return the passwords of an address: before the host and, as some drivers allow, among the options."""
    options = [value for name, values in address.normalized_query.items() if _SECRET.search(name) for value in values]
    return [str(password) for password in (address.password, *options) if password]


def without_passwords(address: str) -> str:
    """Replace the passwords in an address by ``***``; return anything that is not an address unchanged."""
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
