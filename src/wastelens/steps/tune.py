"""``tune``: trials of one model's settings on train and val, the best of them trained once more and tested once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.tune import TuneConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import RunError
from wastelens.experiment.train_one import check_weights
from wastelens.studies.cell_work import train_cells
from wastelens.studies.cells import Cell, configuration_key
from wastelens.studies.claims import Claims
from wastelens.studies.results import Place
from wastelens.system.console import say, warn
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import Run, StoredRun, Tracker, to_json
from wastelens.tuning.database import holds_password
from wastelens.tuning.identity import study_name
from wastelens.tuning.report import log_report, say_report
from wastelens.tuning.results import Found, found_by
from wastelens.tuning.space import Space
from wastelens.tuning.trial_work import Clock, do_trials, end_lost_runs
from wastelens.tuning.trial_workers import work_in_processes
from wastelens.tuning.trials import ERROR, TrialStore

WAITING = "unlogged"
RETRAINED_METRICS = ("test_macro_ap", "test_macro_ap_low", "test_macro_ap_high", "gain_over_controls")


@dataclass(frozen=True)
class Tuned:
    """What ``tune`` made: the study's run, what its trials found, and the run of the best settings, if retrained."""

    run_id: str
    found: Found
    retrained: StoredRun | None


def run(config: TuneConfig, tracker: Tracker) -> Tuned:
    """Do trials until as many as asked for are done, here and by other workers; report; retrain the best.

    Raises:
        InputError: no such dataset, a space that no training fits, a study of something else under this name, a
            database that does not answer, or weights that cannot be had.
        RunError: no trial came to anything.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    config = config.model_copy(update={"study": config.study or f"{Path(config.model).stem} on {dataset.name}"})
    space = Space(config)
    dataset.learning(space.defaults.fold)  # or it is refused here, and not by every trial
    check_weights([(config.model, space.defaults)], 'In tune: set="train.weights=none train.freeze=0"')
    store = TrialStore(config, space, dataset.digest)
    _say_plan(config, space, store)
    shared_run = tracker.start_shared(f"tune {study_name(config)}", f"tune {store.id}")
    # Soon, or MLflow asks a server that is gone for minutes at every epoch.
    with tracker.giving_up_soon(), shared_run as shared:
        _describe(shared, config, dataset, space)
        clock = Clock(config.timeout_s)
        if config.workers == 1:
            do_trials(space, store, dataset, tracker, shared.id, clock)
        else:
            work_in_processes(config, store, shared.id, clock)
        end_lost_runs(store, tracker)
        found = found_by(store, space)
        if found is None:
            raise RunError(f"No trial of '{study_name(config)}' was complete. {_why_none(store)}")
        log_report(shared, found, store, space, config, tracker)
        retrained = _retrained(config, space, found, dataset, tracker, shared) if config.retrain else None
    say_report(shared.id, found, retrained, config, tracker)
    return Tuned(shared.id, found, retrained)


def _say_plan(config: TuneConfig, space: Space, store: TrialStore) -> None:
    standing = store.standing()
    before = f" ({standing.done} of them done before)" if standing.done else ""
    if standing.done > store.asked:
        before = f" asked for ({standing.done} are done already, and none is begun)"
    say(
        f"Study '{study_name(config)}': {store.asked} trials{before} of {len(space.parameters)} parameters of "
        f"{config.model}, sampler {config.sampler}, pruner {config.pruner}, "
        f"{space.defaults.fit.epochs} epochs at most each. The first is the defaults."
    )
    if holds_password(config):
        warn(
            "The parameter 'storage' holds a password, and mlflow run shows parameters in its log and its run. Leave "
            "it out there, and set PGPASSWORD."
        )
    if store.asked < config.trials:
        warn(f"The grid has {store.asked} combinations; there will be no {config.trials} trials.")


def _describe(shared: Run, config: TuneConfig, dataset: PreparedDataset, space: Space) -> None:
    """Log what the study is about; of one that is continued, the tags tell the latest."""
    shared.log_parameters(
        {
            "dataset": config.dataset,
            "model": config.model,
            "sampler": config.sampler,
            "pruner": config.pruner,
            "seed": config.seed,
            **{f"train.{key}": value for key, value in flatten(config.train).items()},
        }
    )
    shared.set_tags(
        {
            "step": "tune",
            "study_name": study_name(config),
            "model": Path(config.model).stem,
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "trials": config.trials,
        }
    )
    shared.log_text(to_json(config.space), "space.json")


def _why_none(store: TrialStore) -> str:
    """What kept all trials from being complete."""
    errors = [trial.user_attrs[ERROR] for trial in store.trials() if ERROR in trial.user_attrs]
    if errors:
        return f"The last one failed: {errors[-1]}"
    return "Give it more time (timeout)."


def _retrained(
    config: TuneConfig,
    space: Space,
    found: Found,
    dataset: PreparedDataset,
    tracker: Tracker,
    shared: Run,
) -> StoredRun | None:
    """Train the best settings, unless that was done; one of all workers does it, the others wait."""
    best = space.settings(found.best)
    place = Place(Path(config.model).stem, {"tuned": study_name(config)}, best.seed, best.fold)
    encoder = configuration_key(best.pretraining(), dataset) if best.pretrained == "auto" else ""
    cell = Cell(place, best, configuration_key(best, dataset), encoder)
    patient = PatientTracker(tracker, config.data_folder / WAITING)
    ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
    claims = Claims(patient, ledger, [dataset.digest], config.worker_timeout_s)
    say("The best settings, trained once more and evaluated on test:")
    with claims.alive():
        standing = train_cells([cell], claims, patient, shared.id, telling=False)
    done = standing.done.get(cell.key)
    if done is None:
        warn("The best settings could not be trained again: see the run above.")
        return None
    shared.set_tags({"retrained_run": done.run.id})
    shared.log_metrics({name: done.metrics[name] for name in RETRAINED_METRICS if name in done.metrics})
    return done
