"""Registries: all parts of one kind (losses, networks, layouts, metrics) by name.

A file adds its part with a decorator::

    @LOSSES.register("focal")
    class FocalLoss(LossConfig): ...

The registry imports those files at its first look-up, so defining a registry loads nothing, and there is no list of
names to keep by hand.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Generic, TypeVar

from wastelens.errors import ConfigError, did_you_mean

Part = TypeVar("Part")
AnyPart = TypeVar("AnyPart")


class Registry(Generic[Part]):
    """Parts of one kind by name, in alphabetical order of their files."""

    def __init__(self, kind: str, module: str) -> None:
        """Remember the word for a part in messages, and the module (or package of modules) that registers the parts."""
        self.kind = kind
        self._module = module
        self._parts: dict[str, Part] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[AnyPart], AnyPart]:
        """Return a decorator that adds a class or a function under a name.

        Raises:
            ValueError: the name is already taken.
        """

        def add(part: AnyPart) -> AnyPart:
            if name in self._parts:
                raise ValueError(f"there is already a {self.kind} named '{name}'")
            self._parts[name] = part  # type: ignore[assignment]
            return part

        return add

    @property
    def parts(self) -> dict[str, Part]:
        """Name → part."""
        if not self._loaded:
            self._loaded = True
            module = import_module(self._module)
            for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
                import_module(f"{self._module}.{found.name}")
            # Files that others import come before them otherwise, or not, as the program happens to load them.
            self._parts = dict(sorted(self._parts.items(), key=lambda item: str(getattr(item[1], "__module__", ""))))
        return self._parts

    def __getitem__(self, name: str) -> Part:
        """Return the part of this name.

        Raises:
            ConfigError: there is no such part.
        """
        if name not in self.parts:
            known = list(self.parts)
            raise ConfigError(f"Unknown {self.kind} '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
        return self.parts[name]
