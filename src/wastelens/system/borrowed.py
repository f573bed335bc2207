"""Access to private parts of other projects: there is no public way, and a release may move them.

Each function imports its project itself. ``tests/system/test_borrowed.py`` has a test for each, so that an upgrade that
breaks one says which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def keras_history(tensor: Any) -> Any:
    """Return what made a symbolic Keras tensor: ``operation``, ``node_index``, ``tensor_index``."""
    return tensor._keras_history


def inputs_of_maker(tensor: Any) -> list[Any]:
    """Return the inputs of the call that made a symbolic Keras tensor.

    Keras' public ``layer.input`` is that of the layer's first call, in whichever network that was.
    """
    history = keras_history(tensor)
    inputs: list[Any] = history.operation._inbound_nodes[history.node_index].input_tensors
    return inputs


def keras_home() -> str:
    """Return the folder of Keras' downloads."""
    from keras.src.backend.config import keras_home

    return str(keras_home())


def keras_application(name: str) -> Any:
    """Return the module of a network in ``keras.applications``, with the addresses of its weights."""
    return import_module(f"keras.src.applications.{name}")


def keras_snake_case(name: str) -> str:
    """Return a class's name as Keras spells it in weights files: ``Conv2D`` → ``conv2d``."""
    from keras.src.utils import naming

    return str(naming.to_snake_case(name))


def adam_slots(optimizer: Any, variable: Any) -> tuple[Any, Any]:
    """Return the moving averages (momentum, velocity) that Keras' Adam keeps for a variable."""
    index = variable_index(optimizer, variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def variable_index(optimizer: Any, variable: Any) -> int:
    """Return a variable's place among those that a Keras optimizer was built with."""
    return int(optimizer._get_variable_index(variable))


def forget_custom_gradients() -> None:
    """Make TensorFlow forget its custom gradients, which it keeps forever, each with its whole graph."""
    from tensorflow.python.framework import ops

    kept = ops.gradient_registry._registry
    for name in [name for name in kept if name.startswith("CustomGradient-")]:
        del kept[name]


def mlflow_answer(seconds: float, uri: str) -> int | None:
    """Return the HTTP status with which an MLflow server answers a search; None where it does not answer in time.

    ``MlflowClient`` takes its timeout from an environment variable, which requests of other threads would see too.
    """
    import mlflow
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            max_retries=0,
            timeout=seconds,
            raise_on_status=False,
        )
    except mlflow.exceptions.MlflowException:
        return None
    return int(answer.status_code)


def create_mlflow_store(uri: str) -> None:
    """Create the tables of MLflow's store in an empty database, and close it: MLflow's client would keep it open."""
    from mlflow.tracking._tracking_service.utils import _get_store

    _get_store(uri)._dispose_engine()


def mlflow_makes_up(name: str) -> bool:
    """Return whether MLflow makes up such a name for a run without one: two words of its lists and a number."""
    from mlflow.utils import name_utils

    words = name.split("-")
    known = ({word.lower() for word in name_utils._GENERATOR_PREDICATES}, set(name_utils._GENERATOR_NOUNS))
    return len(words) == 3 and words[0] in known[0] and words[1] in known[1] and words[2].isdecimal()


def mlflow_knows_schema(revision: str) -> bool:
    """Return whether this MLflow knows a revision of its database's tables; those of later releases it does not."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return any(script.revision == revision for script in scripts.walk_revisions())


def delete_artifact(artifact_uri: str, path: str) -> None:
    """Delete a run's artifact file or folder, which MLflow's client does not offer."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(artifact_uri).delete_artifacts(path)


def mlflow_view_tag(key: str) -> str:
    """Return the tag of an experiment in which MLflow's pages look up a shared view: JSON of what its table shows."""
    return f"mlflow.sharedViewState.{key}"


def stop_system_metrics(run_id: str) -> None:
    """Let the thread end that logs a run's system metrics, where ``mlflow.end_run`` could not end it.

    It is not waited for: its request to an absent server may be repeated for minutes.
    """
    import mlflow

    monitor = mlflow.tracking.fluent.run_id_to_system_metrics_monitor.pop(run_id, None)
    if monitor:
        monitor._shutdown_event.set()


def guard_mlflow_server(check_type: Callable[[str | None], None], read_json: Callable[[bytes | str], Any]) -> None:
    """In a process of MLflow's scoring server, have requests' content types checked and their JSON read by functions.

    The server answers with what they raise as MlflowException. Where a release of MLflow has no such functions,
    requests are read as it does.
    """
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
    if hasattr(server, "_parse_json_data") and hasattr(server, "ParsedJsonInput"):

        def parse(data: Any, metadata: Any, input_schema: Any) -> Any:
            return server.ParsedJsonInput(read_json(data), None, False)

        server._parse_json_data = parse
    if hasattr(server, "invocations"):
        server.invocations = _checked(server.invocations, check_type)


def _checked(answer: Any, check_type: Callable[[str | None], None]) -> Any:
    """Return the server's function that answers a request, with a check before it instead of an earlier one."""
    answer = getattr(answer, "unchecked", answer)

    def checked(data: Any, content_type: str | None, *others: Any) -> Any:
        check_type(content_type)
        return answer(data, content_type, *others)

    vars(checked)["unchecked"] = answer
    return checked
