"""Controls: predictors that do not look at the litter, which a model has to beat before its scores count.

They are chance, neighbouring files, photo size and colours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.prepared.tables import LabelTable, TestTable, TrainTable
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.system.arrays import FloatArray, IndexArray, PhotoArray
from wastelens.system.text import natural_key

NAMES = ("random", "neighbours", "size", "colour")
NEIGHBOUR_MARGIN = 0.03
NEIGHBOURS = 10
RANDOM_DRAWS = 200
TREES = 400
_FOLDS = 5
# Three photos per leaf: on TACO as good as one (colour 0.357 and 0.355 on random splits), with smaller trees.
_PHOTOS_PER_LEAF = 3
HISTOGRAM_BINS = (12, 4, 4)  # hue, saturation, value
_THUMBNAIL_SIDE_PX = 6
_NOTE_LABELS_IN_NAMES = (
    "Every folder holds one combination of materials, so file names give the labels away. The neighbours control "
    "would only read them there and is replaced by the base rates."
)


@dataclass(frozen=True)
class Controls:
    """Predictions and macro AP of the controls.

    Attributes:
        scores: control → split → float64 (photos of the split, materials) in [0, 1], rows as in the split's table.
        macro_ap: control → split → macro AP; for ``random``, the mean over 200 draws, of which ``scores`` holds the
            one nearest to that mean.
        note: a caveat for the user, or "".
    """

    materials: tuple[str, ...]
    scores: Mapping[str, Mapping[str, FloatArray]]
    macro_ap: Mapping[str, Mapping[str, float]]
    note: str = ""

    def metrics(self) -> dict[str, float]:
        """Return ``controls/<name>_macro_ap`` of test and ``controls/<name>_val_macro_ap`` → value, for MLflow."""
        parts = {"val": "val_", "test": ""}
        return {
            f"controls/{name}_{parts[split]}macro_ap": value
            for name, splits in self.macro_ap.items()
            for split, value in splits.items()
        }


def score_controls(train: TrainTable, others: Mapping[str, LabelTable], photos: PhotoArray, seed: int) -> Controls:
    """Fit the four controls on train and score the other splits; the same seed gives the same numbers.

    Repeated rows of train (an oversampled table) count once. For the arguments see :class:`ControlInputs`.

    Raises:
        TypeError: ``train`` holds another split.
        ValueError: tables and photos do not match.
    """
    inputs = ControlInputs(train, others, photos)
    first = np.sort(np.unique(np.asarray(train.file_names), return_index=True)[1])
    inputs = replace(inputs, train=train.take(first))
    labels_in_names = folders_are_labels([inputs.train, *others.values()])
    random, random_ap = random_scores(inputs, np.random.default_rng(seed))
    scores = {
        "random": random,
        "neighbours": base_rates(inputs) if labels_in_names else neighbour_scores(inputs),
        "size": size_scores(inputs, seed),
        "colour": colour_scores(inputs, seed),
    }
    # Nine digits: enough for any ranking, without the noise of summing in another order, which breaks ties.
    rounded = {name: {split: s.round(9) for split, s in splits.items()} for name, splits in scores.items()}
    macro_ap = {
        name: {split: float(macro_average_precision(others[split].labels, s)) for split, s in splits.items()}
        for name, splits in rounded.items()
    }
    note = _NOTE_LABELS_IN_NAMES if labels_in_names else ""
    return Controls(train.materials, rounded, macro_ap | {"random": random_ap}, note)


def cross_fitted_controls(table: TestTable, groups: Sequence[str], photos: PhotoArray, seed: int) -> Controls:
    """Score the controls on photos without a split: each photo by those that were fitted on the other folds.

    There are up to five folds of whole groups. Scores of all folds are ranked together, as a model's are. The split in
    the answer is ``test``.

    Args:
        table, photos: as for :func:`score_controls`; photos of the table occur once.
        groups: of the table's rows, two different ones at least.
        seed: of the forests and of random scores.
    """
    from sklearn.model_selection import GroupKFold

    folds = GroupKFold(min(_FOLDS, len(set(groups)))).split(np.zeros(len(table)), groups=list(groups))
    scores: dict[str, FloatArray] = {name: np.zeros(table.labels.shape) for name in NAMES}
    note = ""
    for train, held_out in folds:
        fitted = TrainTable(table.frame.iloc[train].reset_index(drop=True), table.materials)
        of_fold = score_controls(fitted, {"test": table.take(held_out)}, photos, seed)
        note = note or of_fold.note
        for name in NAMES:
            scores[name][held_out] = of_fold.scores[name]["test"]
    everything = ControlInputs(TrainTable(table.frame, table.materials), {"test": table}, photos)
    random, random_ap = random_scores(everything, np.random.default_rng(seed))
    scores["random"] = random["test"]
    macro_ap = {name: float(macro_average_precision(table.labels, one)) for name, one in scores.items()}
    macro_ap |= {"random": random_ap["test"]}
    return Controls(
        table.materials,
        {name: {"test": one} for name, one in scores.items()},
        {name: {"test": value} for name, value in macro_ap.items()},
        note,
    )


def neighbour_warning(controls: Controls, advice: str) -> str | None:
    """Return one sentence if file order alone predicts the test labels, otherwise None; advice: the fix."""
    neighbours, random = controls.macro_ap["neighbours"]["test"], controls.macro_ap["random"]["test"]
    if not neighbours > random + NEIGHBOUR_MARGIN:
        return None
    return (
        f"The labels of neighbouring files alone score macro AP {neighbours:.3f} on test (random scores "
        f"{random:.3f}): neighbouring photos show the same scene and are in both train and test, so this "
        f"split measures memory of scenes; {advice}."
    )


def controls_frame(controls: Controls, tables: Mapping[str, LabelTable]) -> pd.DataFrame:
    """Return one row for each control, split and photo: ``control``, ``split``, ``file_name`` and a score per material.

    Raises:
        ValueError: a split has another number of rows than scores.
    """
    parts = []
    for name, splits in controls.scores.items():
        for split, scores in splits.items():
            part = pd.DataFrame(scores, columns=list(controls.materials))
            part.insert(0, "control", name)
            part.insert(1, "split", split)
            part.insert(2, "file_name", tables[split].file_names)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def control_scores(frame: pd.DataFrame, control: str, table: LabelTable) -> FloatArray:
    """Return one control's scores from a :func:`controls_frame`, rows as in ``table``: (n, m).

    Raises:
        ValueError: a photo of the table has no scores or several, since they were computed for another split.
    """
    rows = frame[frame["control"] == control].set_index("file_name")
    wanted = table.file_names
    if missing := set(wanted) - set(rows.index):
        raise ValueError(f"{len(missing)} photos, such as '{min(missing)}', have no '{control}' scores")
    found = rows[list(table.materials)].loc[wanted]
    if len(found) != len(wanted):
        raise ValueError(f"some photos have several '{control}' scores; use those of one split")
    return found.to_numpy(dtype=np.float64)


@dataclass(frozen=True)
class ControlInputs:
    """The data that controls are computed from.

    Attributes:
        train: the photos they are fitted on, each once.
        others: split name → the table to score (``val``, ``test``).
        photos: uint8 RGB (photos, side, side, 3), indexed by the tables' column ``photo_index``; may be a memory map,
            since it is read one photo at a time.
    """

    train: TrainTable
    others: Mapping[str, LabelTable]
    photos: PhotoArray

    def __post_init__(self) -> None:
        if not isinstance(self.train, TrainTable):
            raise TypeError(f"controls are fitted on a TrainTable, not on a {type(self.train).__name__}")
        if self.photos.ndim != 4 or self.photos.shape[-1] != 3 or self.photos.dtype != np.uint8:
            raise ValueError(f"photos must be uint8 (n, side, side, 3), not {self.photos.dtype} {self.photos.shape}")
        for split, table in self.tables.items():
            if not len(table) or table.materials != self.train.materials:
                raise ValueError(f"{split} has no rows, or other materials than train")

    @property
    def tables(self) -> dict[str, LabelTable]:
        """Split name → table, ``train`` first."""
        return {"train": self.train, **self.others}


def random_scores(inputs: ControlInputs, rng: np.random.Generator) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Draw uniform scores 200 times; return one draw, split → (n, m), and the mean macro AP, split → number.

    The mean is above the prevalence, since chance order puts some positives first: by 0.015 on 290 TACO photos. The
    draw nearest to the mean is kept, for figures and paired comparisons.
    """
    kept, mean = {}, {}
    for split, table in inputs.others.items():
        labels = table.labels
        draws = rng.random((RANDOM_DRAWS, *labels.shape))
        values = np.array([float(macro_average_precision(labels, draw)) for draw in draws])
        mean[split] = float(values.mean())
        kept[split] = draws[int(np.argmin(np.abs(values - mean[split])))]
    return kept, mean


def base_rates(inputs: ControlInputs) -> dict[str, FloatArray]:
    """Return the training prevalence for every photo: split → (n, m)."""
    prevalence = inputs.train.labels.mean(axis=0)
    return {split: np.tile(prevalence, (len(table), 1)) for split, table in inputs.others.items()}


def neighbour_scores(inputs: ControlInputs) -> dict[str, FloatArray]:
    """Average the labels of the ten nearest training photos in the same folder, weighted by 1/distance: split → (n, m).

    No pixel is seen: the score tells how well a scene predicts itself. Photos of all splits are numbered in natural
    order (``batch_2`` before ``batch_10``), folder by folder; a distance is a difference of these numbers. Other
    folders are other scenes: a photo whose folder has no training photo gets the training prevalence, so with whole
    folders held out this is the constant predictor.

    On TACO's 1,500 photos, 291 of them in test and the rest in train: macro AP 0.421 (mean of 10 seeds, standard
    deviation 0.016) on random splits; 0.263, the floor, with batches 2, 9 and 14 held out
    (``python -m bench.leakage``).
    """
    place = file_order([name for table in inputs.tables.values() for name in source_files(table)])
    labels = inputs.train.labels.astype(np.float64)
    prevalence = labels.mean(axis=0)
    files = source_files(inputs.train)
    members = pd.Series(files).groupby([_folder(name) for name in files]).indices
    train_places = np.array([place[name] for name in files])
    scores = base_rates(inputs)
    for split, table in inputs.others.items():
        for row, name in enumerate(source_files(table)):
            rows = members.get(_folder(name))
            if rows is not None:
                scores[split][row] = _nearest_labels(place[name], train_places[rows], labels[rows], prevalence)
    return scores


def _nearest_labels(place: int, train_places: IndexArray, labels: FloatArray, prevalence: FloatArray) -> FloatArray:
    """Return the weighted mean of the neighbours' labels (m,), plus a trace of prevalence to break ties at zero."""
    distance = np.abs(train_places - place)
    nearest = np.argsort(distance, kind="stable")[:NEIGHBOURS]
    weight = 1.0 / np.maximum(distance[nearest], 1)  # a file in both splits has distance 0, which counts as 1
    return np.asarray((weight @ labels[nearest] + 1e-6 * prevalence) / (weight.sum() + 1e-6))


def file_order(names: Sequence[str]) -> dict[str, int]:
    """Return each file's place in natural order, from 0; repeated names share a place."""
    return {name: place for place, name in enumerate(sorted(set(names), key=natural_key))}


def source_files(table: LabelTable) -> list[str]:
    """Return the photos' original paths, one per row, with ``/`` between folders."""
    return [str(name).replace("\\", "/") for name in table.frame["source_file"]]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def folders_are_labels(tables: Sequence[LabelTable]) -> bool:
    """Return whether folders are classes, so that their names give the labels away.

    That is: folders of two or more photos hold most photos, each has one combination of materials, and the
    combinations differ.
    """
    combinations: dict[str, list[bytes]] = defaultdict(list)
    for table in tables:
        for name, row in zip(source_files(table), table.labels, strict=True):
            combinations[_folder(name)].append(row.tobytes())
    shared = [found for found in combinations.values() if len(found) > 1]
    photos = sum(len(found) for found in combinations.values())
    holds_most = 2 * sum(len(found) for found in shared) > photos
    several = len({found[0] for found in shared}) > 1
    return holds_most and several and all(len(set(found)) == 1 for found in shared)


def size_scores(inputs: ControlInputs, seed: int) -> dict[str, FloatArray]:
    """Fit a forest on the photos' size and shape, which tell cameras and users apart. Return split → (n, m)."""
    features = {split: _size_features(table) for split, table in inputs.tables.items()}
    return forest_scores(features, inputs.train.labels, seed)


def _size_features(table: LabelTable) -> FloatArray:
    """Return width, height (pixels), ratio, area, and portrait, square or landscape as -1, 0 or 1: (n, 5)."""
    width = table.frame["width"].to_numpy(dtype=np.float64)
    height = table.frame["height"].to_numpy(dtype=np.float64)
    return np.column_stack([width, height, width / height, width * height, np.sign(width - height)])


def colour_scores(inputs: ControlInputs, seed: int) -> dict[str, FloatArray]:
    """Fit a forest on colours, which show grass, asphalt or sand but no objects. Return split → (n, m)."""
    features = {split: colour_features(inputs.photos, table.photo_index) for split, table in inputs.tables.items()}
    return forest_scores(features, inputs.train.labels, seed)


def colour_features(photos: PhotoArray, index: IndexArray) -> FloatArray:
    """Return shares of 192 hue, saturation and value bins, then 36 thumbnail pixels in [0, 1]: (len(index), 300).

    photos: uint8 RGB (photos, side, side, 3), read one photo at a time; index: the photos to use, in this order.
    """
    return np.stack([_colours_of(np.asarray(photos[at])) for at in index])


def _colours_of(photo: PhotoArray) -> FloatArray:
    import cv2

    hsv = cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2HSV)  # hue 0–179, the others 0–255
    bins = np.array(HISTOGRAM_BINS)
    binned = hsv.reshape(-1, 3).astype(np.intp) * bins // np.array([180, 256, 256])
    flat = np.ravel_multi_index(tuple(binned.T), HISTOGRAM_BINS)
    histogram = np.bincount(flat, minlength=int(bins.prod())) / len(flat)
    thumbnail = cv2.resize(photo, (_THUMBNAIL_SIDE_PX, _THUMBNAIL_SIDE_PX), interpolation=cv2.INTER_AREA)
    return np.concatenate([histogram, thumbnail.ravel() / 255.0])


def forest_scores(
    features: Mapping[str, FloatArray], train_labels: npt.NDArray[np.uint8], seed: int
) -> dict[str, FloatArray]:
    """Fit a random forest (Breiman 2001) of 400 trees on train; return its probabilities for the other splits.

    features: split → (n, features), ``train`` among them; train_labels: (n of train, m). Return split → (n, m).
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, min_samples_leaf=_PHOTOS_PER_LEAF, random_state=seed, n_jobs=2)
    constant = train_labels.min(axis=0) == train_labels.max(axis=0)
    scores = {split: np.tile(train_labels.mean(axis=0), (len(x), 1)) for split, x in features.items()}
    del scores["train"]
    if constant.all():
        return scores
    varying = train_labels[:, ~constant]
    forest.fit(features["train"], varying if varying.shape[1] > 1 else varying[:, 0])
    forest.set_params(n_jobs=1)  # threads add up the trees in any order, and the last digit of the sums differs
    for split, table in scores.items():
        answer = forest.predict_proba(features[split])
        per_material = answer if isinstance(answer, list) else [answer]
        table[:, ~constant] = np.column_stack([both[:, 1] for both in per_material])
    return scores
