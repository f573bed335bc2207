"""Addresses are shown without the passwords in them."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url

from wastelens.system.passwords import passwords_in, without_passwords


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:se%40cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("https://me:secret@host/mlflow", "https://me:***@host/mlflow"),
        (
            "postgresql://me@host/db?sslmode=require&password=secret",
            "postgresql://me@host/db?password=%2A%2A%2A&sslmode=require",
        ),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////some/mlflow.db", "sqlite:////some/mlflow.db"),
        ("some/folder", "some/folder"),
    ],
)
def test_passwords_are_hidden(address: str, shown: str) -> None:
    assert without_passwords(address) == shown


def test_passwords_are_found_decoded() -> None:
    address = make_url("postgresql://me:se%40cret@host/db?sslpassword=a&sslpassword=b&options=c")
    assert passwords_in(address) == ["se@cret", "a", "b"]
    assert passwords_in(make_url("postgresql://me@host/db")) == []
