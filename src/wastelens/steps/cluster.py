"""``cluster``: k-means on a run's learned features, beside raw pixels and colours, compared with the materials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
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
from wastelens.experiment.finished_runs import FinishedRun, describe_run, find_run, network_of, unusual
from wastelens.figures.clusters import cluster_map, k_choice, materials_per_cluster, nearest_photos, score_bars
from wastelens.models.backend import load_backend
from wastelens.system.arrays import Array, IndexArray
from wastelens.system.console import progress_bar, say, table, warn
from wastelens.tracking.tracker import Run, Tracker, run_note

_SAME = 1e-6
_SPLITS = {"held_out": ("val", "test"), "all": ("train", "val", "test")}
# Rows of the photo cache → features of these photos, float (photos, features).
Features = Callable[[IndexArray], Array]


@dataclass(frozen=True)
class Clustered:
    """A finished clustering: the run, and its verdict as a sentence."""

    run_id: str
    sentence: str


def run(config: ClusterConfig, tracker: Tracker) -> Clustered:
    """Cluster, and print where the results are.

    Raises:
        As :func:`judged`.
    """
    clustered = judged(config, tracker)
    say(f"Run {clustered.run_id} is complete. See it: {tracker.finished_hint(clustered.run_id)}")
    return clustered


def judged(config: ClusterConfig, tracker: Tracker) -> Clustered:
    """Cluster the training photos by each kind of features, and compare the clusters of other photos with their labels.

    Raises:
        InputError: there is no such prepared dataset, the run has no network, or k does not fit the photos.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    found = check(config, tracker, dataset)
    dataset = dataset.at_side(found.image_side_px) if found else dataset
    clustered = found.config["method" if found.step == "pretrain" else "model"] if found else "controls"
    with tracker.start(" ".join(["cluster", clustered, *unusual(config)])) as tracked:
        tracked.log_parameters(flatten(config))
        describe_run(tracked, "cluster", config, dataset)
        origin = {"clustered_run": found.id, "clustered_step": found.step} if found else {}
        tracked.set_tags({"seed": config.seed, **origin, "fold": config.fold})
        parts = vars(dataset.split(config.fold))
        chosen = [parts[name].frame for name in _SPLITS.get(config.photos, (config.photos,))]
        scored = LabelTable(pd.concat(chosen, ignore_index=True), dataset.materials)
        clusters = list(_clusters(config, parts["train"], scored, _features(dataset, found)))
        if not clusters:
            raise DatasetError(f"All training photos of {dataset.name} look the same: there is nothing to cluster.")
        sentence = verdict({one.features: one.scores for one in clusters})
        about = f"{clustered} on {dataset.name}: "
        captions = {
            "scored": f"{about}{config.photos.replace('_', ' ')} ({len(scored):,} photos)",
            "train": f"{about}train ({len(parts['train']):,} photos)",
        }
        _log_results(tracked, clusters, scored, dataset, sentence, config.seed, captions)
        _print_table(clusters)
        say(sentence)
        return Clustered(tracked.id, sentence)


def check(config: ClusterConfig, tracker: Tracker, dataset: PreparedDataset) -> FinishedRun | None:
    """Check, before any work, that the run and k fit the dataset; return the run, if one is named.

    Raises:
        RunError: the run has no network, or is of another dataset or split.
        ConfigError: k is larger than the number of training photos.
    """
    photos = len(dataset.split(config.fold).train)
    k = config.k if isinstance(config.k, int) else config.k_range[0]
    if k > photos:
        raise ConfigError(f"k={k} is more than the {photos} training photos. Give k={photos} or less.")
    return find_run(tracker, config.run_id, dataset, config.fold, ["pretrain", "train"]) if config.run_id else None


def _features(dataset: PreparedDataset, found: FinishedRun | None) -> dict[str, Features]:
    """Return the features to cluster: those of the run, and the controls, which need no learning."""
    controls: dict[str, Features] = {name: partial(make, dataset.photos) for name, make in CONTROL_FEATURES.items()}
    if found is None:
        return controls
    load_backend()
    from wastelens.models.features import feature_network, predict_in_batches

    network = feature_network(network_of(found))
    return {"learned": lambda index: predict_in_batches(network, dataset.photos, index), **controls}


def _clusters(
    config: ClusterConfig, train: LabelTable, scored: LabelTable, features: dict[str, Features]
) -> Iterator[FeatureClusters]:
    """Cluster each kind of features, the learned ones first: the controls get the same k, as purity rises with k."""
    k = config.k
    with progress_bar("Clusters", len(features)) as bar:
        for name, of_photos in features.items():
            bar.show(name)
            fitted_on = of_photos(train.photo_index)
            if np.ptp(fitted_on, axis=0).max(initial=0) < _SAME:
                warn(f"The {name} features are the same for every photo: there is nothing to cluster.")
                continue
            one = cluster_features(
                name,
                fitted_on,
                of_photos(scored.photo_index),
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


def _log_results(
    tracked: Run,
    clusters: Sequence[FeatureClusters],
    scored: LabelTable,
    dataset: PreparedDataset,
    sentence: str,
    seed: int,
    captions: Mapping[str, str],
) -> None:
    """Log metrics, inertia and silhouette of every k as steps, figures, and each photo's cluster."""
    caption = captions["scored"]
    for one in clusters:
        tracked.log_metrics(one.metrics())
        for tried in one.clustering.candidates:
            measured = {"silhouette_over_k": tried.silhouette, "inertia_over_k": tried.inertia}
            tracked.log_metrics({f"cluster/{one.features}/{key}": value for key, value in measured.items()}, tried.k)
        folder = f"figures/{one.features}"
        tracked.log_figure(materials_per_cluster(scored, one.assignment), f"{folder}/materials.png", caption)
        tracked.log_figure(
            nearest_photos(scored, one.assignment, dataset.photos), f"{folder}/nearest_photos.png", caption
        )
        tracked.log_figure(cluster_map(scored, one.assignment, one.points, seed=seed), f"{folder}/map.png", caption)
        if len(one.clustering.candidates) > 1:
            tracked.log_figure(k_choice(one.clustering, one.features), f"{folder}/k.png", captions["train"])
        tracked.log_table(assignments_frame(scored, one.assignment), f"assignments_{one.features}.csv")
    tracked.log_figure(
        score_bars({one.features: one.scores for one in clusters}, sentence), "figures/scores.png", caption
    )
    pictures = ["figures/scores.png", f"figures/{clusters[0].features}/map.png"]
    tracked.set_tags({"verdict": sentence, **run_note(tracked.id, f"**{sentence}**", pictures=pictures)})


def _print_table(clusters: Sequence[FeatureClusters]) -> None:
    rows = []
    for one in clusters:
        scores = [f"{score.value:.3f} ({score.random:.3f})" for score in one.scores.scores.values()]
        rows.append([one.features, str(one.clustering.k), *scores])
    names = [name.replace("_", " ") for name in clusters[0].scores.scores]
    table("Clusters against materials (in brackets: random clusters)", ["features", "k", *names], rows)
