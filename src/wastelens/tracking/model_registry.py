"""MLflow's registry: numbered versions of a named model, with tags and a description, and aliases for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wastelens.errors import RunError, did_you_mean
from wastelens.system.passwords import without_passwords
from wastelens.tracking.mlflow_store import (
    create_store,
    registry_is_away,
    store_client,
    store_errors,
    unreachable,
    without_waiting,
)
from wastelens.tracking.tracker import ModelVersion, logged_text

_CODES = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_MOST_NAMED = 200


class MlflowRegistry:
    """The versions of one registered model; it may not exist yet.

    Raises:
        StoreUnreachable: the registry has a server of its own, which does not answer; it is not waited for.
        RunError: the registry cannot be used.
    """

    def __init__(self, name: str) -> None:
        import mlflow

        self.name = name
        if registry_is_away():
            raise unreachable("registry")
        with store_errors("registry"):
            create_store(mlflow.get_registry_uri())

    def find(self, alias: str, version: str) -> ModelVersion:
        """Return the version that an alias, or else a number, means.

        Raises:
            RunError: there is no such model, alias or version; the message names those that there are.
        """
        with without_waiting():
            versions, aliases = self.versions(), self.aliases()
            found = versions.get(aliases.get(alias, 0) if alias else int(version))
            if found is None and not versions:
                raise RunError(self._no_such_model())
        if found is None:
            wanted = f"alias '{alias}'" if alias else f"version '{version}'"
            newest_first = sorted(versions, reverse=True)
            there = ", ".join([*(f"@{one}" for one in sorted(aliases)), *(f"/{one}" for one in newest_first[:5])])
            raise RunError(f"The registered model '{self.name}' has no {wanted}. It has {there}.")
        return found

    @store_errors("registry")
    def _no_such_model(self) -> str:
        import mlflow

        names = sorted(one.name for one in store_client().search_registered_models(max_results=_MOST_NAMED))
        hint = did_you_mean(self.name, names) or (f" Known: {', '.join(names[:5])}." if names else "")
        where = without_passwords(mlflow.get_registry_uri())
        return f"There is no registered model '{self.name}' in {where}.{hint} Give its name, or a run id."

    @store_errors("registry")
    def versions(self) -> dict[int, ModelVersion]:
        """Return number → version, in the order of numbers."""
        found: list[Any] = []
        token: str | None = None
        while token != "":
            page = store_client().search_model_versions(f"name='{self.name}'", page_token=token)  # no quotes in names
            found, token = [*found, *page], page.token or ""
        versions = [ModelVersion(int(one.version), one.run_id or "", dict(one.tags), one.description) for one in found]
        return {one.number: one for one in sorted(versions, key=lambda one: one.number)}

    @store_errors("registry")
    def aliases(self) -> dict[str, int]:
        """Return alias → number of the version; empty where there is no such model."""
        import mlflow

        try:
            aliases = store_client().get_registered_model(self.name).aliases
        except mlflow.exceptions.MlflowException as error:
            if error.error_code in _ABSENT:
                return {}
            raise
        return {alias: int(number) for alias, number in aliases.items()}

    def register(self, run_id: str) -> int:
        """Register a run's logged model as a new version, unless one is of this run already; return its number.

        Raises:
            RunError: the run has no finished logged model.
        """
        import mlflow

        for number, version in reversed(self.versions().items()):
            if version.run_id == run_id:
                return number
        model_id = logged_model_of(run_id)
        with store_errors("registry"):
            client = store_client()
            try:
                client.create_registered_model(self.name)
            except mlflow.exceptions.MlflowException as error:
                if error.error_code not in _CODES:
                    raise
            made = client.create_model_version(self.name, f"models:/{model_id}", run_id, model_id=model_id)
            return int(made.version)

    @store_errors("registry")
    def describe(self, number: int, tags: Mapping[str, object], description: str) -> None:
        """Set tags and the description (markdown) of a version; other tags stay."""
        client = store_client()
        for key, value in tags.items():
            client.set_model_version_tag(self.name, str(number), key, logged_text(value))
        client.update_model_version(self.name, str(number), description)

    @store_errors("registry")
    def point(self, alias: str, number: int) -> None:
        """Move an alias to a version, in one step."""
        store_client().set_registered_model_alias(self.name, alias, str(number))

    @store_errors("registry")
    def drop(self, alias: str) -> None:
        """Remove an alias, if it is there."""
        store_client().delete_registered_model_alias(self.name, alias)


def logged_model_of(run_id: str) -> str:
    """Return the id of the finished model that a run logged last.

    Raises:
        RunError: there is none.
    """
    import mlflow

    with store_errors():
        client = store_client()
        experiment = client.get_run(run_id).info.experiment_id
        found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ready = [one for one in found if one.status == mlflow.entities.LoggedModelStatus.READY]
    if not ready:
        raise RunError(
            f"Run {run_id} has no logged model to register: it was deleted, or not finished. Train it again."
        )
    return str(max(ready, key=lambda one: one.creation_timestamp).model_id)
