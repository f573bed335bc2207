"""``tune``: a search for a model's best settings on train and val; the best are trained once more and tested once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wastelens.config.engine import is_elsewhere
from wastelens.config.tune import TuneConfig
from wastelens.data.prepared.opening import open_dataset
from wastelens.engine.engine import opened
from wastelens.errors import RunError
from wastelens.experiment.train_one import check_weights
from wastelens.system.files import alone_in
from wastelens.tracking.tracker import StoredRun, Tracker, start_or_continue
from wastelens.tuning import results
from wastelens.tuning.database import check_shared
from wastelens.tuning.searching import Search, end_lost_runs, retrain_best
from wastelens.tuning.space import Space
from wastelens.tuning.trial_training import Clock
from wastelens.tuning.trials import TrialStore, search_name


@dataclass(frozen=True)
class Tuned:
    """The outcome of ``tune``: the run of the search, its results, and the run of the best settings, if retrained."""

    run_id: str
    found: results.SearchResults
    retrained: StoredRun | None


def run(config: TuneConfig, tracker: Tracker) -> Tuned:
    """Run trials on the engine until the requested number is done; report; retrain the best.

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
    if is_elsewhere(config.engine_in_use):
        tracker.check_shared(config.engine)
        check_shared(config)
    name = search_name(config)
    with alone_in(config.data_folder / "running" / f"tune {name}", "study"):
        store = TrialStore(config, space, dataset.digest)
        results.say_plan(config, space, store)
        with (
            opened(config.engine_in_use, retries=config.retries) as engine,
            start_or_continue(tracker, f"tune {name}", {"step": "tune", "search_id": store.id}) as shared,
        ):
            results.log_settings(shared, config, dataset, space)
            Search(config, store, dataset, engine, tracker, shared.id, Clock(config.timeout_s)).run()
            end_lost_runs(store, tracker)
            found = results.search_results(store, space)
            if found is None:
                raise RunError(f"No trial of '{name}' was complete. {results.why_none(store)}")
            results.log_report(shared, found, store, space, config, tracker)
            best = retrain_best(config, space, found, dataset, engine, tracker, shared) if config.retrain else None
    results.say_report(shared.id, found, best, config, tracker)
    return Tuned(shared.id, found, best)
