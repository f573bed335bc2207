"""Models in MLflow: versions in the registry, and the files of logged models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wastelens.errors import RunError, StoreUnreachable, did_you_mean
from wastelens.system.passwords import without_passwords
from wastelens.system.text import reason_of
from wastelens.tracking.mlflow_store import outages, store_client, store_errors, without_waiting
from wastelens.tracking.tracker import RegisteredModel

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_MOST_NAMED = 200


def registered(name: str, alias: str, version: str) -> RegisteredModel:
    """Return the version of a registered model that an alias or a number means.

    Raises:
        StoreUnreachable: the server does not answer.
        RunError: there is no such model, alias or version, or no registry.
    """
    import mlflow

    client = store_client()
    try:
        with without_waiting(), outages():
            by_alias = client.get_model_version_by_alias
            found = by_alias(name, alias) if alias else client.get_model_version(name, version)
    except StoreUnreachable:
        raise
    except Exception as error:  # whatever a registry's own store raises
        if isinstance(error, mlflow.exceptions.MlflowException) and error.error_code in _ABSENT:
            raise RunError(_what_there_is(client, name, alias, version)) from None
        raise RunError(_no_registry(error)) from None
    return RegisteredModel(str(found.name), str(found.version), str(found.run_id or ""))


def download_model(address: str, into: Path) -> Path:
    """Download a logged model to a new folder below ``into``; return the folder, which has a file ``MLmodel``.

    Raises:
        StoreUnreachable: the server does not answer.
        RunError: its files are not there.
    """
    import mlflow

    try:
        with outages():
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(into)))
    except (OSError, mlflow.exceptions.MlflowException) as error:
        if isinstance(error, StoreUnreachable):
            raise
        raise RunError(
            f"{address} has no files ({reason_of(error)}). They were deleted: train the model again."
        ) from None


def _what_there_is(client: Any, name: str, alias: str, version: str) -> str:
    """Say that there is no such version, and name those that there are."""
    with store_errors():
        known = {one.name: one for one in client.search_registered_models(max_results=_MOST_NAMED)}
        if name not in known:
            hint = did_you_mean(name, list(known)) or (f" Known: {', '.join(sorted(known)[:5])}." if known else "")
            return f"There is no registered model '{name}' in {_registry()}.{hint} Give its name, or a run id."
        aliases = [f"@{one}" for one in sorted(known[name].aliases)]
        versions = sorted((int(one.version) for one in client.search_model_versions(f"name = '{name}'")), reverse=True)
    wanted = f"alias '{alias}'" if alias else f"version '{version}'"
    there = ", ".join([*aliases, *(f"/{one}" for one in versions[:5])]) or "no version at all"
    return f"The registered model '{name}' has no {wanted}. It has {there}."


def _registry() -> str:
    import mlflow

    return without_passwords(mlflow.get_registry_uri())


def _no_registry(error: Exception) -> str:
    return (
        f"The model registry {_registry()} does not answer or cannot be used ({reason_of(error)}). Start it, set "
        "MLFLOW_REGISTRY_URI to one that runs, or give a run id."
    )
