"""``cluster``: k-means on what a run has learnt, beside raw pixels and colours, compared with the materials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.cluster import ClusterConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import ConfigError, DatasetError
from wastelens.evaluation.clustering import (
    CONTROL_FEATURES,
    FeatureClusters,
    assignments_frame,
    cluster_features,
    verdict,
)
from wastelens.experiment.finished_runs import CONFIG_ARTIFACT, FinishedRun, find_run, network_of, usable_with
from wastelens.figures.clusters import cluster_map, k_choice, materials_per_cluster, nearest_photos, score_bars
from wastelens.models.backend import load_backend
from wastelens.system.console import progress_bar, say, table, warn
from wastelens.tracking.tracker import Run, Tracker, to_json

LEARNED = "learned"
_SAME = 1e-6
_SPLITS = {"held_out": ("val", "test"), "all": ("train", "val", "test")}
Index = npt.NDArray[np.intp]
# Features of the photos at these rows of the cache, float (photos, features).
Features = Callable[[Index], npt.NDArray[Any]]


@dataclass(frozen=True)
class Clustered:
    """What ``cluster`` made: a run, and what its clusters say."""

    run_id: str
    sentence: str


def run(config: ClusterConfig, tracker: Tracker) -> Clustered:
    """Cluster the training photos by each kind of features, and compare the clusters of others with their materials.

    Raises:
        InputError: there is no such prepared dataset, the run has no network, or k does not fit the photos.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    found = check(config, tracker, dataset)
    with tracker.start(run_name(config, found)) as tracked:
        _describe(tracked, config, dataset, found)
        train, scored = _tables(config, dataset)
        clusters = list(_clusters(config, train, scored, _features(dataset, found)))
        if not clusters:
            raise DatasetError(f"All training photos of {dataset.name} look the same: there is nothing to cluster.")
        sentence = verdict({one.features: one.scores for one in clusters})
        _log_results(tracked, clusters, scored, dataset, sentence, config.seed)
        _report(clusters, sentence)
        say(f"Run {tracked.id} is complete. See it: {tracker.finished_hint()}")
        return Clustered(tracked.id, sentence)


def check(config: ClusterConfig, tracker: Tracker, dataset: PreparedDataset) -> FinishedRun | None:
    """Look, before any work, whether the run and k fit the dataset; returns the run, if one is named.

    Raises:
        RunError: the run has no network, or is of another dataset or split.
        ConfigError: k is larger than the training photos.
    """
    photos = len(dataset.split(config.fold).train)
    k = config.k if isinstance(config.k, int) else config.k_range[0]
    if k > photos:
        raise ConfigError(f"k={k} is more than the {photos} training photos. Give k={photos} or less.")
    return find_run(tracker, config.run_id, dataset, config.fold, ["pretrain", "train"]) if config.run_id else None


def run_name(config: ClusterConfig, found: FinishedRun | None) -> str:
    """``cluster dbn seed 0``."""
    learnt = found.config["method" if found.step == "pretrain" else "model"] if found else "controls"
    return f"cluster {learnt} seed {config.seed}"


def _describe(tracked: Run, config: ClusterConfig, dataset: PreparedDataset, found: FinishedRun | None) -> None:
    tracked.log_parameters(flatten(config))
    about = {"step": "cluster", "config": config.model_dump(mode="json"), **usable_with(dataset)}
    tracked.log_text(to_json(about), CONFIG_ARTIFACT)
    tags = {"step": "cluster", "dataset": dataset.name, "dataset_digest": dataset.digest, "seed": config.seed}
    learnt = {"clustered_run": found.id, "clustered_step": found.step} if found else {}
    tracked.set_tags({**tags, **learnt, "fold": config.fold})


def _tables(config: ClusterConfig, dataset: PreparedDataset) -> tuple[LabelTable, LabelTable]:
    """The training photos, and those whose clusters are compared with their materials."""
    parts = vars(dataset.split(config.fold))
    chosen = [parts[name].frame for name in _SPLITS.get(config.photos, (config.photos,))]
    return parts["train"], LabelTable(pd.concat(chosen, ignore_index=True), dataset.materials)


def _features(dataset: PreparedDataset, found: FinishedRun | None) -> dict[str, Features]:
    """What is clustered: what the run has learnt, and what needs no learning."""
    controls: dict[str, Features] = {
        name: partial(features, dataset.photos) for name, features in CONTROL_FEATURES.items()
    }
    if found is None:
        return controls
    load_backend()
    from wastelens.models.features import feature_network, features_of

    network = feature_network(network_of(found))
    return {LEARNED: lambda index: features_of(network, dataset.photos, index), **controls}


def _clusters(
    config: ClusterConfig, train: LabelTable, scored: LabelTable, features: dict[str, Features]
) -> Iterator[FeatureClusters]:
    """Each kind of features, what was learnt first: its k is the controls' too, as purity rises with k alone."""
    k = config.k
    with progress_bar("Clusters", len(features)) as bar:
        for name, of_photos in features.items():
            bar.show(name)
            learnt_on = of_photos(_rows(train))
            if np.ptp(learnt_on, axis=0).max(initial=0) < _SAME:
                warn(f"The {name} features are the same for every photo: there is nothing to cluster.")
                continue
            one = cluster_features(
                name,
                learnt_on,
                of_photos(_rows(scored)),
                scored.labels,
                k=k,
                k_range=config.k_range,
                n_init=config.n_init,
                draws=config.draws,
                seed=config.seed,
            )
            k = one.clustering.k
            yield one
            bar.advance()


def _rows(photos: LabelTable) -> Index:
    return photos.frame["photo_index"].to_numpy(dtype=np.intp)


def _log_results(
    tracked: Run,
    clusters: Sequence[FeatureClusters],
    scored: LabelTable,
    dataset: PreparedDataset,
    sentence: str,
    seed: int,
) -> None:
    """Metrics, inertia and silhouette of every k as steps, figures, and who went where."""
    for one in clusters:
        tracked.log_metrics(one.metrics())
        for tried in one.clustering.candidates:
            measured = {"silhouette_over_k": tried.silhouette, "inertia_over_k": tried.inertia}
            tracked.log_metrics({f"cluster_{one.features}_{key}": value for key, value in measured.items()}, tried.k)
        folder = f"figures/{one.features}"
        tracked.log_figure(materials_per_cluster(scored, one.assignment), f"{folder}/materials.png")
        tracked.log_figure(nearest_photos(scored, one.assignment, dataset.photos), f"{folder}/nearest_photos.png")
        tracked.log_figure(cluster_map(scored, one.assignment, one.points, seed=seed), f"{folder}/map.png")
        tracked.log_figure(k_choice(one.clustering, one.features), f"{folder}/k.png")
        tracked.log_table(assignments_frame(scored, one.assignment), f"assignments_{one.features}.csv")
    tracked.log_figure(score_bars({one.features: one.scores for one in clusters}, sentence), "figures/scores.png")
    tracked.set_tags({"verdict": sentence})


def _report(clusters: Sequence[FeatureClusters], sentence: str) -> None:
    rows = [
        [
            one.features,
            str(one.clustering.k),
            *(f"{score.value:.3f} ({score.random:.3f})" for score in one.scores.scores.values()),
        ]
        for one in clusters
    ]
    names = [name.replace("_", " ") for name in clusters[0].scores.scores]
    table("Clusters against materials (in brackets: at random)", ["features", "k", *names], rows)
    say(sentence)
