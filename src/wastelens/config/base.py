"""The base of all configuration: closed (unknown keys are refused), frozen, strict about true and false."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

DATASET_HELP = (
    "auto, taco, sample, a folder of photos with their labels (data/README.md has the layouts), or a prepared dataset"
)
TRAINING_SEED_HELP = "of the weights, the batches and all random changes: the same seed gives the same first loss"
FOLD_HELP = "0: the one split; K: the K-th cross-validation split"
UNLABELLED_HELP = "a folder of photos without labels to pretrain on in addition"
MIXED_PRECISION_HELP = "true or false: compute in bfloat16 where the hardware supports it"
RESUME_HELP = "the id of an interrupted run to resume"
LARGEST_SEED = 2**32 - 1  # what scikit-learn and Keras take
# A study's name is used in tags, in searches for them, in file names, and in commands.
_NOT_IN_NAMES = re.compile(r"[^\w .-]")
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})


def parameter(description: str, *, default: str | None = None, **limits: Any) -> Any:
    """Return the field of a setting that is also a parameter of the command line and of MLproject.

    Args:
        description: its help.
        default: as the command line shows it, where this is not the value in ``conf/``: empty for a setting that
            another file sets.
        limits: as for pydantic's ``Field``.
    """
    return Field(description=description, json_schema_extra={"parameter": True, "default": default}, **limits)


class Config(BaseModel):
    """Base of all configuration: closed, frozen, and without defaults, which are in ``conf/``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_booleans(cls, value: object, info: Any) -> object:
        """Accept ``true|false|1|0|yes|no`` in any case for booleans, but not pydantic's ``on``, ``t`` and ``y``."""
        assert info.field_name is not None
        if cls.model_fields[info.field_name].annotation is not bool:
            if isinstance(value, bool):  # pydantic would take it for the number 1 or 0
                raise ValueError("cannot be true or false")
            return value
        return plain_boolean(value)


def plain_boolean(value: object) -> bool:
    """Read ``true|false|1|0|yes|no`` in any case.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false (1, 0, yes and no are understood too)")


def listed(value: object) -> object:
    """Split ``"a, b"``, as the command line gives a list."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def auto_or_listed(value: object) -> object:
    """Accept the word ``auto`` or a list."""
    return value if value == "auto" else listed(value)


def _plain_name(study: str) -> str:
    if found := _NOT_IN_NAMES.search(study):
        raise ValueError(f"{found[0]!r} cannot be in a study's name; use letters, digits, spaces and . _ - only")
    return study.strip()


StudyName = Annotated[str, AfterValidator(_plain_name)]
NameList = Annotated[tuple[str, ...], BeforeValidator(listed)]


def as_text(value: object) -> str:
    """Return a value as the command line spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def flatten(config: Config | Mapping[str, Any]) -> dict[str, str]:
    """Return dotted keys and their values as text, for MLflow's parameters; nested lists stay one value.

    Args:
        config: a step's, or as a run wrote it into its ``config.json``.
    """

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", as_text(value)

    return dict(walk(config.model_dump(mode="json") if isinstance(config, Config) else config, ""))
