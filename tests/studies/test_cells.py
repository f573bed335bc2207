"""The cells of a study: order, settings, and the keys that identify them."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories import MATERIALS, config, table

from wastelens.config.augmentation import NoAugmentation, TransformConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import BALANCED, FOLDS, PreparedDataset
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import BalanceError, ConfigError
from wastelens.preparing.balance import training_rows
from wastelens.studies.cells import Cell, check_factors, configuration_key, plan_cells
from wastelens.studies.results import Place

PHOTOS, COPIES, BATCH = 60, 10, 8
TRAIN_ROWS = {0: 40, 1: 36, 2: 44}
BATCHED = f"train.fit.batch_size={BATCH}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Tables of 60 photos with two folds, whose training rows differ in number; balanced they are 10 more."""
    folder = tmp_path_factory.mktemp("data") / "prepared" / "litter"
    folder.mkdir(parents=True)
    frame = table(TrainTable, PHOTOS, groups=12).frame
    frame["split"] = _split(TRAIN_ROWS[0])
    folds, copies = pd.DataFrame({"file_name": frame["file_name"]}), np.r_[np.full(COPIES, 2), np.ones(30, int)]
    for fold in (1, 2):
        rows = TRAIN_ROWS[fold]
        folds[f"fold_{fold}"] = _split(rows)
        folds[f"copies_{fold}"] = np.r_[copies[:rows], np.ones(max(0, rows - 40), int), np.zeros(PHOTOS - rows, int)]
    folds.to_csv(folder / FOLDS, index=False)
    balanced = frame.iloc[[*range(40), *range(COPIES)]]
    balanced.drop(columns="photo_index").to_csv(folder / BALANCED, index=False)
    manifest = {
        "name": "litter",
        "digest": "a digest",
        "materials": list(MATERIALS),
        "files": {},
        "split": {"folds": 2},
        "settings": {"balance_target": 0.7, "max_copies": "auto"},
    }
    return PreparedDataset(folder, manifest, frame)


def _split(train_rows: int) -> list[str]:
    return ["train"] * train_rows + ["val"] * 4 + ["test"] * (PHOTOS - train_rows - 4)


def planned(dataset: PreparedDataset, settings: str = "", **parameters: str) -> list[Cell]:
    given = {"models": "base", "factors": "augment=false|true", "seeds": "2", "folds": "0", **parameters}
    return plan_cells(config("study", f"{BATCHED} {settings}", **given), {"": dataset})


def keys(cells: list[Cell]) -> set[str]:
    return {cell.key for cell in cells}


def test_the_grid_in_its_order(dataset: PreparedDataset) -> None:
    cells = planned(
        dataset,
        models="base,dbn",
        factors="augment=false|true,labels=50|100 %,balanced=false|true",
        folds="2,1",
        seed="7",
    )
    expected = [
        Place(model, {"augment": augment, "labels": labels, "balanced": balanced}, seed, fold)
        for seed in (7, 8)
        for fold in (1, 2)
        for model in ("base", "dbn")
        for labels in ("50", "100")
        for balanced in ("false", "true")
        for augment in ("false", "true")  # the arms of a pair beside each other
    ]
    assert [cell.place for cell in cells] == expected
    assert len(keys(cells)) == len(cells)
    for cell in cells:
        place, made = cell.place, cell.config
        assert (made.model, made.seed, made.fold) == (place.model, place.seed, place.fold)
        assert (made.policy is not None) is (place.levels["augment"] == "true")
        assert made.balanced is (place.levels["balanced"] == "true")
        assert made.labels_percent == float(place.levels["labels"])
    place = cells[0].place
    assert (place.arm, place.stratum) == ("false", "labels=50, balanced=false")
    assert place.label == "base augment=false labels=50 balanced=false seed 7 fold 1"


@pytest.mark.parametrize(
    ("factor", "values"),
    [
        ("loss=bce|focal", [("loss.kind", "bce"), ("loss.kind", "focal")]),
        ("labels=50|100 %", [("labels_percent", 50.0), ("labels_percent", 100.0)]),
        ("schedule.peak=0.001|0.002", [("schedule.peak", 0.001), ("schedule.peak", 0.002)]),
        ("freeze=0.5|features", [("freeze", 0.5), ("freeze", "features")]),
        ("network.widths=[4]|[8, 16]", [("network.widths", (4,)), ("network.widths", (8, 16))]),
        ("augment_policy=light|none", [("augmentation.policy", "light"), ("augmentation.policy", "none")]),
        ("fine_tune.epochs=0|1", [("fine_tune.epochs", 0), ("fine_tune.epochs", 1)]),
    ],
)
def test_levels_are_values_of_their_keys(
    dataset: PreparedDataset, factor: str, values: list[tuple[str, object]]
) -> None:
    grid = {"models": ("base",), "factors": (factor,), "seeds": 1, "folds": (0,), "train": {"augment": True}}
    cells = plan_cells(config("study").model_copy(update=grid), {"": dataset})
    found = []
    for cell in cells:
        value: Any = cell.config
        for part in values[0][0].split("."):
            value = getattr(value, part)
        found.append((values[0][0], value))
    assert found == values
    assert all(type(one) is type(other) for (_, one), (_, other) in zip(found, values, strict=True))


def test_a_policy_brings_its_transforms(dataset: PreparedDataset) -> None:
    light, none = planned(dataset, "train.augment=true", factors="augment_policy=light|none", seeds="1")
    assert none.config.augmentation.transforms == ()
    assert light.config.augmentation.transforms


def test_folds(dataset: PreparedDataset) -> None:
    assert [cell.place.fold for cell in planned(dataset, seeds="1", folds="auto")] == [1, 1, 2, 2]
    assert [cell.place.fold for cell in planned(dataset, seeds="1", folds="2,0,2")] == [0, 0, 2, 2]
    unfolded = replace(dataset, manifest={**dataset.manifest, "split": {"folds": 0}})
    assert [cell.place.fold for cell in planned(unfolded, seeds="1", folds="auto")] == [0, 0]
    with pytest.raises(ConfigError, match=r"^folds=3, but litter was prepared with folds=2\. Prepare it with more, or"):
        planned(dataset, folds="1,3")


@pytest.mark.parametrize(
    ("folds", "factors", "settings", "rows"),
    [
        ("0", "augment=false|true", "", 40 + COPIES),
        ("0", "augment=false|true", "train.balanced=false", 40),
        ("1,2", "augment=false|true", "train.balanced=false", 44),
        ("auto", "augment=false|true", "", 44 + COPIES),
        ("1", "balanced=false|true", "", 44 + COPIES),  # as with all folds, so that others can be added later
        ("0", "labels=25|50", "train.balanced=false", 20),
        ("0", "labels=25|100", "train.balanced=false", 40),
    ],
)
def test_all_cells_train_as_many_steps_as_the_longest_pass_needs(
    dataset: PreparedDataset, folds: str, factors: str, settings: str, rows: int
) -> None:
    cells = planned(dataset, settings, folds=folds, factors=factors)
    assert {cell.config.fit.steps_per_epoch for cell in cells} == {math.ceil(rows / BATCH)}


def test_steps_that_are_given_are_kept_and_no_cell_ends_early(dataset: PreparedDataset) -> None:
    epochs = "train.fit.epochs=3 train.fit.patience_epochs=1"
    for cell in planned(dataset, f"train.fit.steps_per_epoch=2 {epochs} train.fine_tune.epochs=5"):
        assert cell.config.fit.steps_per_epoch == 2
        # Longer than either phase: fine-tuning, too, goes on to its end.
        assert cell.config.fit.patience_epochs >= 5
    assert planned(dataset, epochs)[0].config.fit.patience_epochs == 3


def test_a_budget_does_not_depend_on_how_many_seeds_there_are(dataset: PreparedDataset) -> None:
    labels = {"factors": "labels=60|70"}
    few, many = (planned(dataset, "train.fit.batch_size=1", seeds=seeds, **labels) for seeds in ("1", "9"))
    assert keys(few) < keys(many)
    passes = [max(rows_of_share(dataset, percent, seed) for percent in (60, 70)) for seed in range(9)]
    assert max(passes) > passes[0], "else the seeds' passes are as long as each other"
    assert {cell.config.fit.steps_per_epoch for cell in many} == {passes[0]}
    # It is of the study's own first seed, not of train's.
    others = planned(dataset, "train.fit.batch_size=1", seed="5", **labels)
    assert {cell.config.fit.steps_per_epoch for cell in others} == {passes[5]} != {passes[0]}


def rows_of_share(dataset: PreparedDataset, percent: float, seed: int, fold: int = 0) -> int:
    return len(
        training_rows(dataset, fold=fold, balanced=True, balance_target="auto", labels_percent=percent, seed=seed)
    )


def balances(dataset: PreparedDataset, percent: float, seed: int, fold: int) -> bool:
    try:
        return rows_of_share(dataset, percent, seed, fold) > 0
    except BalanceError:
        return False


def test_few_labels_that_cannot_be_balanced(dataset: PreparedDataset) -> None:
    with pytest.raises(BalanceError, match=r"labels_percent=2\) cannot be balanced"):
        planned(dataset, factors="labels=2|100")


def test_a_share_of_any_seed_that_cannot_be_balanced_is_found(dataset: PreparedDataset) -> None:
    sound = [balances(dataset, 25, seed, fold=1) for seed in range(20)]
    first = sound.index(True)
    last = sound.index(False, first)  # from the one on all seeds before the other are sound
    asked = {"factors": "labels=25|100", "folds": "1", "seed": str(first)}
    refused = {**asked, "seeds": str(last - first + 1)}
    with pytest.raises(BalanceError, match=r"labels_percent=25\) cannot be balanced"):
        planned(dataset, **refused)
    assert planned(dataset, "train.balanced=false", **refused)


def test_what_does_not_depend_on_the_seed_is_balanced_once(
    dataset: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def rows(dataset: PreparedDataset, **of: Any) -> TrainTable:
        asked.append((of["labels_percent"], of["seed"]))
        return training_rows(dataset, **of)

    monkeypatch.setattr("wastelens.studies.cells.training_rows", rows)
    planned(dataset, models="base,dbn", factors="loss=bce|focal,labels=70|100", seeds="3")
    assert sorted(asked) == [(70, 0), (70, 0), (70, 1), (70, 2), (100, 0)]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ("augmnt=false|true", "Unknown factor 'augmnt'. Did you mean 'augment'?"),
        ("augment=false|true,label=10|100", "Unknown factor 'label'. Did you mean 'labels'?"),
        ("fitt.epochs=1|2", "Unknown factor 'fitt.epochs'."),
    ],
)
def test_factors_that_no_training_knows(factors: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_factors(config("study", factors=factors).parsed_factors)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("A factor is a key of conf/train.yaml, or labels, loss, mapping, corrections.")


def test_factors_that_a_training_knows() -> None:
    check_factors(config("study", factors="mapping=default|predecessor,labels=10|100,fit.epochs=1|2").parsed_factors)


@pytest.mark.parametrize(
    ("parameters", "settings", "words"),
    [
        (
            {"factors": "fit.epoch=1|2"},
            "",
            "base fit.epoch=1: Unknown key 'fit.epoch' in the factor fit.epoch. Did you mean 'fit.epochs'?",
        ),
        (
            {"factors": "augment=false|maybe"},
            "",
            "base augment=maybe: Config key 'augment' in the factor augment: must",
        ),
        ({"factors": "labels=10|200"}, "", "base labels=200: Config key 'labels_percent' in the factor labels: input"),
        ({"factors": "loss=bce|focl"}, "", "base loss=focl: Unknown loss 'focl'. Did you mean 'focal'?"),
        ({"factors": "pretrained=none|auto"}, "", "pretrained=auto, but model=base has no encoder to pretrain"),
        ({"models": "base,bsae"}, "", "bsae augment=false: Unknown model 'bsae'. Did you mean 'base'?"),
        ({"factors": "freeze=0|["}, "", "Cannot read the value in 'freeze=[' of the factor freeze."),
        ({"models": "autoencoder"}, "train.network.widths=[4]", "'network.widths' in the section train is a"),
        ({}, "train.fit.epoch=3", "Unknown key 'fit.epoch' in the section train. Did you mean 'fit.epochs'?"),
        ({}, "train.resume=abc", "resume is not a setting of its cells; a study resumes when it is run again"),
        ({}, "train.model=vgg16", "model is not a setting of its cells; write models beside train, not below it"),
        ({}, "train.seed=3", "seed is not a setting of its cells; write seeds beside train, not below it"),
        ({}, "train.data_folder=other", "data_folder is not a setting of its cells; write data_folder beside train"),
        (
            {"factors": "augment_policy=light|none"},
            "",
            "base augment_policy=light: 'augmentation.policy' in",
        ),
        (
            {"factors": "balance_target=0.5|0.6"},
            "train.balanced=false",
            "'base balance_target=0.5 seed 0 fold 0' and 'base balance_target=0.6 seed 0 fold 0' are the same",
        ),
        ({"factors": "labels=100|100.0"}, "", "are the same training"),
        (
            {"factors": "loss.gamma=1|2"},
            "",
            "base loss.gamma=1: 'loss.gamma' in the factor loss.gamma is",
        ),
        ({"factors": "bootstrap_resamples=100|200"}, "", "are the same training"),
        ({"factors": "augment_policy=light|none,augment=true|false"}, "", "augment=false seed 0 fold 0' are the same"),
    ],
)
def test_grids_that_cannot_be(dataset: PreparedDataset, parameters: dict[str, str], settings: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(dataset, settings, **parameters)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_strata_may_share_a_training(dataset: PreparedDataset) -> None:
    cells = planned(dataset, factors="augment=false|true,augment_policy=light|none", seeds="1")
    plain, light, again, none = (cell.key for cell in cells)
    assert plain == again
    assert len({plain, light, none}) == 3


def test_a_pretraining_is_shared_by_the_cells_that_start_from_it(dataset: PreparedDataset) -> None:
    factors = "pretrained=none|auto,labels=50|100 %,loss=bce|focal"
    cells = planned(dataset, models="autoencoder,dbn", factors=factors, folds="1,2")
    shared: dict[tuple[str, int, int], set[str]] = {}
    for cell in cells:
        if cell.place.levels["pretrained"] == "none":
            assert cell.encoder_key == ""
        else:
            place = cell.place
            shared.setdefault((place.model, place.seed, place.fold), set()).add(cell.encoder_key)
    assert all(len(of_place) == 1 for of_place in shared.values())
    assert len(set.union(*shared.values())) == len(shared) == 2 * 2 * 2
    assert not set.union(*shared.values()) & keys(cells)


def test_keys_do_not_know_where_things_lie(dataset: PreparedDataset, tmp_path: Path) -> None:
    elsewhere = replace(dataset, folder=tmp_path)
    one = config("train", "data_folder=here", dataset="taco")
    for settings, parameters in (
        (f"data_folder={tmp_path}", {}),
        ("max_problem_share=0.1", {}),
        ("outage_minutes=0", {}),
        ("", {"dataset": "sample"}),
        ("", {"resume": "abc"}),
    ):
        other = config("train", settings, **parameters)
        assert configuration_key(other, elsewhere) == configuration_key(one, dataset)
    prepared_anew = replace(dataset, manifest={**dataset.manifest, "digest": "another"})
    assert configuration_key(one, prepared_anew) != configuration_key(one, dataset)


def test_what_a_policy_says_counts_only_with_augmentation(dataset: PreparedDataset) -> None:
    def key(settings: str, **parameters: str) -> str:
        return configuration_key(config("train", settings, **parameters), dataset)

    with_it = [
        key("augment=true"),
        key("augment=true", augment_policy="light"),
        key("augment=true augmentation.transforms=[]"),
        key("augment=true augmentation.strength=0.5"),
        key("augment=true views=2"),
        key(""),
    ]
    assert len(set(with_it)) == len(with_it)


POLICY = config("train", augment="true").augmentation
OTHER_VALUES = {
    "model": ("dbn",),
    "pretrained": ("none",),
    "weights": ("some.h5",),
    "freeze": (0.5, "block1"),
    "fine_tune.epochs": (1,),
    "fine_tune.freeze": (0.5,),
    "fine_tune.learning_rate": (0.1,),
    "fine_tune.warmup_epochs": (0.5,),
    "fine_tune.layer_decay": (0.5,),
    "fine_tune.average": (0.9,),
    "freeze_normalisation": (True,),
    "solve_head": (True,),
    "unlabelled": ("photos",),
    "augmentation": (NoAugmentation(kind="none"), POLICY.model_copy(update={"views": 2})),
    "cache_features": (False,),
    "balanced": (False,),
    "balance_target": (0.5,),
    "labels_percent": (10.0, 50.0),
    "fold": (1, 2),
    "loss": (config("train", "loss.kind=focal").loss, config("train", "loss.kind=asymmetric").loss),
    "schedule": (config("train", "schedule.kind=constant").schedule, config("train", "schedule.kind=cosine").schedule),
    "schedule.start": (0.001,),
    "schedule.peak": (0.1,),
    "schedule.warmup_epochs": (0.0, 1.0),
    "optimizer": (config("train", "optimizer.kind=adam").optimizer, config("train", "optimizer.kind=sgd").optimizer),
    "optimizer.clip_norm": (0.0,),
    "image_side_px": (64, 0),
    "fit.epochs": (3,),
    "fit.steps_per_epoch": (3, 4),
    "fit.batch_size": (8,),
    "fit.patience_epochs": (3,),
    "precision": (0.5,),
    "recall": (0.5,),
    "mixed_precision": (True,),
    "seed": (1, 2),
    "network.method": ("denoising_autoencoder",),
    "network.learner.widths": ((4,),),
    "network.learner.epochs": (1,),
    "network.dropout": (0.5,),
}
NO_SETTINGS = {"dataset", "data_folder", "resume", "max_problem_share", "bootstrap_resamples", "outage_minutes"}
# What a training reads of these settings, as the code that trains has it.
USED_WHERE = {
    "balance_target": lambda made: made.balanced,
    **{
        f"fine_tune.{name}": lambda made: made.fine_tune.epochs > 0
        for name in ("freeze", "learning_rate", "warmup_epochs", "layer_decay", "average")
    },
    "schedule.start": lambda made: made.schedule.warmup_epochs > 0,
    "recall": lambda made: made.precision > 0,
}


def test_every_setting_has_another_value_here() -> None:
    covered = {key.split(".")[0] for key in OTHER_VALUES}
    assert covered == set(TrainConfig.model_fields) - NO_SETTINGS
    for part in ("fine_tune", "fit"):
        kind = TrainConfig.model_fields[part].annotation
        fields = {key.split(".")[1] for key in OTHER_VALUES if key.startswith(f"{part}.")}
        assert fields == set(kind.model_fields)  # type: ignore[union-attr]


def changed(base: TrainConfig, key: str, value: object) -> TrainConfig:
    """The settings with another value, unchecked: here their meaning does not matter."""
    *parents, last = key.split(".")
    levels: list[Any] = [base]
    for parent in parents:
        levels.append(getattr(levels[-1], parent))
    assert getattr(levels[-1], last) != value
    made = levels.pop().model_copy(update={last: value})
    for parent in reversed(parents):
        made = levels.pop().model_copy(update={parent: made})
    return made


AUTOENCODER = config("train", model="autoencoder", augment="true")


@given(st.lists(st.sampled_from([(key, value) for key, of in OTHER_VALUES.items() for value in of]), max_size=4))
def test_keys_differ_where_a_setting_does_that_is_used(changes: list[tuple[str, object]]) -> None:
    somewhere = PreparedDataset(Path("nowhere"), {"digest": "a digest"}, pd.DataFrame())
    last = dict(sorted(changes, key=lambda change: "." in change[0]))  # a kind first, then settings within it
    made = AUTOENCODER
    for key, value in last.items():
        made = changed(made, key, value)
    used = {name for name in last if USED_WHERE.get(name, always)(made)}
    key = configuration_key(made, somewhere)
    assert (key == configuration_key(AUTOENCODER, somewhere)) is (not used)
    # And each of several changes counts where it is used, whichever others there are.
    for left_out in last:
        fewer = AUTOENCODER
        for name, value in last.items():
            fewer = fewer if name == left_out else changed(fewer, name, value)
        assert (configuration_key(fewer, somewhere) == key) is (left_out not in used)


def always(made: TrainConfig) -> bool:
    return True


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 2.0])
def test_what_counts_of_a_schedule_is_what_the_learning_rate_depends_on(
    dataset: PreparedDataset, name: str, warmup: float
) -> None:
    base = config("train", f"schedule.kind={name} schedule.warmup_epochs={warmup}")
    values = {"start": 0.001, "floor": 0.0015, "decay_per_epoch": 0.5}
    for key in set(values) & set(type(base.schedule).model_fields):
        other = changed(base, f"schedule.{key}", values[key])
        rates = [[one.schedule.learning_rate(epoch / 2, 40) for epoch in range(80)] for one in (base, other)]
        counts = configuration_key(other, dataset) != configuration_key(base, dataset)
        assert counts is (rates[0] != rates[1])


def test_weights_count_by_what_is_in_their_file(dataset: PreparedDataset, tmp_path: Path) -> None:
    def key(weights: object) -> str:
        return configuration_key(config("train", model="vgg16", weights=str(weights)), dataset)

    here, there, other = (tmp_path / name for name in ("here.h5", "there.h5", "other.h5"))
    for file, content in ((here, b"weights"), (there, b"weights"), (other, b"others")):
        file.write_bytes(content)
    assert key(here) == key(there) != key(other)
    before = key(here)
    here.write_bytes(b"changed")
    os.utime(here, ns=(1, 1))
    assert key(here) != before
    # A file that is not there is refused where it is read.
    assert len({key("imagenet"), key("none"), key(tmp_path / "gone.h5"), key(tmp_path), key(there)}) == 5
    levels = {"models": "vgg16", "factors": f"weights={there}|{tmp_path / 'copy.h5'}"}
    (tmp_path / "copy.h5").write_bytes(b"weights")
    with pytest.raises(ConfigError, match="are the same training"):
        planned(dataset, **levels)


def test_the_order_of_a_transforms_parameters_does_not_count(dataset: PreparedDataset) -> None:
    parameters = ({"scale": 1, "rotate": 2}, {"rotate": 2, "scale": 1}, {"scale": 2, "rotate": 1})
    policies = [TransformConfig(name="Affine", probability=1, parameters=of) for of in parameters]
    one, turned, other = (
        changed(config("train", augment="true"), "augmentation", POLICY.model_copy(update={"transforms": (policy,)}))
        for policy in policies
    )
    assert configuration_key(one, dataset) == configuration_key(turned, dataset) != configuration_key(other, dataset)


def test_pretrainings_differ_where_their_settings_do(dataset: PreparedDataset) -> None:
    def key(settings: str = "", **parameters: str) -> str:
        made: PretrainConfig = config("pretrain", settings, **parameters)
        return configuration_key(made, dataset)

    others = ["seed=1", "fold=1", "learner.epochs=1", "unlabelled=photos", "mixed_precision=true"]
    found = {key(), *(key(settings) for settings in others), key(method="rbm")}
    assert len(found) == len(others) + 2
    assert key("data_folder=elsewhere max_problem_share=0.1 outage_minutes=0", resume="abc", dataset="sample") == key()
