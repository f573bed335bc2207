"""``tune``: a search for a model's best settings on train and val; the best are trained once more and tested once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wastelens.config.tune import TuneConfig
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import RunError
from wastelens.experiment.train_one import check_weights
from wastelens.tracking.tracker import StoredRun, Tracker
from wastelens.tuning import results
from wastelens.tuning.space import Space
from wastelens.tuning.trial_work import Clock, do_trials, end_lost_runs, retrain_best
from wastelens.tuning.trial_workers import work_in_processes
from wastelens.tuning.trials import TrialStore, search_name


@dataclass(frozen=True)
class Tuned:
    """The outcome of ``tune``: the run of the search, its results, and the run of the best settings, if retrained."""

    run_id: str
    found: results.SearchResults
    retrained: StoredRun | None


def run(config: TuneConfig, tracker: Tracker) -> Tuned:
    """Run trials, here and in other workers, until the requested number is done; report; retrain the best.

    Raises:
        InputError: an unknown dataset, an invalid space, another search of this name, a database that does not
            answer, or weights that are not available.
        RunError: no trial was complete.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    config = config.model_copy(update={"study": config.study or f"{Path(config.model).stem} on {dataset.name}"})
    space = Space(config)
    dataset.learning(space.defaults.fold)  # an invalid fold is refused here, not by every trial
    check_weights([(config.model, space.defaults)], 'In tune: set="train.weights=none train.freeze=0"')
    store = TrialStore(config, space, dataset.digest)
    results.say_plan(config, space, store)
    shared_run = tracker.start_shared(f"tune {search_name(config)}", f"tune {store.id}")
    # Otherwise MLflow would retry an unreachable server for minutes at every epoch.
    with tracker.giving_up_soon(), shared_run as shared:
        results.log_settings(shared, config, dataset, space)
        clock = Clock(config.timeout_s)
        if config.workers == 1:
            do_trials(space, store, dataset, tracker, shared.id, clock)
        else:
            work_in_processes(config, store, shared.id, clock)
        end_lost_runs(store, tracker)
        found = results.search_results(store, space)
        if found is None:
            raise RunError(f"No trial of '{search_name(config)}' was complete. {results.why_none(store)}")
        results.log_report(shared, found, store, space, config, tracker)
        retrained = retrain_best(config, space, found, dataset, tracker, shared) if config.retrain else None
    results.say_report(shared.id, found, retrained, config, tracker)
    return Tuned(shared.id, found, retrained)
