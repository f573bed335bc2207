"""The trainings of a study that this process does: whichever nobody has taken, until all are done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from wastelens.config.study import MAPPING
from wastelens.errors import BalanceError, NonFiniteLossError, StoreUnreachable
from wastelens.experiment.pretrain_one import pretrain_one
from wastelens.experiment.train_one import train_one
from wastelens.models.backend import forget_networks, load_backend
from wastelens.studies.cells import Cell
from wastelens.studies.claims import ABANDONED, ATTEMPT, CELL, Claims, Offer, Standing, Task
from wastelens.system import interrupts
from wastelens.system.console import say, warn
from wastelens.tracking.patient import PatientTracker
from wastelens.training.checkpoint import load_checkpoint

_SECONDS_BETWEEN_LOOKS = 5.0


def train_cells(
    cells: Sequence[Cell], claims: Claims, tracker: PatientTracker, study: str, *, telling: bool = True
) -> Standing:
    """Train the cells that are nobody else's; returns when none is left that could be done, here or elsewhere.

    Args:
        cells: of the study.
        claims: on its tasks.
        tracker: where their runs go; what cannot be logged waits on disk.
        study: the id of the study's run, for their tags.
        telling: whether to say how many cells are done.
    """
    return _Work(cells, claims, tracker, study, telling=telling).do_all()


class _Work:
    """The tasks of a study, and what happened to those that this process tried."""

    def __init__(
        self, cells: Sequence[Cell], claims: Claims, tracker: PatientTracker, study: str, *, telling: bool
    ) -> None:
        self._cells = {cell.key: cell for cell in cells}
        self._encoders = {cell.encoder_key: cell for cell in reversed(cells) if cell.encoder_key}
        tasks = [task for cell in cells for task in tasks_of(cell)]
        self._tasks = [task for number, task in enumerate(tasks) if task.key not in {one.key for one in tasks[:number]}]
        self._claims = claims
        self._tracker = tracker
        self._study = study
        self._minutes: list[float] = []
        self._telling = telling
        self._told = ""

    def do_all(self) -> Standing:
        load_backend()
        while True:
            try:
                standing = self._claims.standing(self._tasks)
                self._tell(standing)
                ready = self._ready(standing)
                if ready and self._claims.claim(ready, standing.free[ready.key]):
                    self._do(ready, standing.free[ready.key], standing)
                elif not ready and not standing.taken:
                    return standing
                elif not ready:
                    interrupts.check()
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
            except StoreUnreachable:
                self._tracker.wait_until_reachable()

    def _ready(self, standing: Standing) -> Task | None:
        """Return the first task that can be done now; a pretraining only while a cell is waiting for it."""
        open_here = [task for task in self._tasks if task.key in standing.free]
        wanted = {task.needs for task in open_here}
        for task in open_here:
            in_order = not task.needs or task.needs in standing.done
            if in_order and (task.key in self._cells or task.key in wanted):
                return task
        return None

    def _do(self, task: Task, offer: Offer, standing: Standing) -> None:
        tags = {CELL: task.key, ATTEMPT: offer.attempt, "study": self._study}
        resume = self._resumable(offer)
        started = time.monotonic()
        try:
            self._train(task, tags, resume, standing)
        except (NonFiniteLossError, BalanceError) as error:
            warn(f"{task.label} failed: {error} The study goes on without it.")
            self._claims.give_up(task, offer, str(error))
        else:
            self._minutes += [(time.monotonic() - started) / 60] if task.key in self._cells else []
        finally:
            forget_networks()

    def _train(self, task: Task, tags: Mapping[str, object], resume: str, standing: Standing) -> None:
        if task.key not in self._cells:
            config = self._encoders[task.key].config.pretraining(resume=resume)
            pretrain_one(config, self._tracker, tags=tags)
            return
        cell = self._cells[task.key]
        changes = {"resume": resume}
        if task.needs:
            changes["pretrained"] = standing.done[task.needs].run.id
        # A file's path is no name of a mapping; train itself tags its run with that.
        levels = {name: level for name, level in cell.place.levels.items() if name != MAPPING}
        trained = train_one(
            cell.config.model_copy(update=changes),
            self._tracker,
            {**tags, **levels, **({"stratum": cell.place.stratum} if cell.place.stratum else {})},
            cell.place.label,
        )
        say(trained.verdict.sentence, "green" if trained.verdict.above_controls else "yellow")

    def _resumable(self, offer: Offer) -> str:
        """Return the interrupted run of a task, if it left a checkpoint; others do not stay RUNNING indefinitely."""
        for run_id in offer.abandoned:
            self._abandon(run_id)
        if not offer.earlier:
            return ""
        if load_checkpoint(self._claims.tracker.stored(offer.earlier).run):
            return offer.earlier
        self._abandon(offer.earlier)
        return ""

    def _abandon(self, run_id: str) -> None:
        self._claims.tracker.finish(run_id, "KILLED")
        self._claims.tracker.stored(run_id).run.set_tags({ABANDONED: True})

    def _tell(self, standing: Standing) -> None:
        """How far the study is, in a line, whenever that has changed."""
        done = sum(key in standing.done for key in self._cells)
        left = len(self._cells) - done - sum(key in standing.failed for key in self._cells)
        line = f"Study: {done} of {len(self._cells)} cells done"
        if standing.taken:
            line += f", {len(standing.taken)} at other processes"
        if left and self._minutes:
            line += f", about {left * sum(self._minutes) / len(self._minutes):.0f} minutes of work left"
        if self._telling and line != self._told:
            say(f"{line}.", "bold")
            self._told = line


def tasks_of(cell: Cell) -> list[Task]:
    """Return the cell's training, after the pretraining that it starts from."""
    place = cell.place
    encoder = Task(cell.encoder_key, f"pretraining for {place.model} seed {place.seed} fold {place.fold}")
    return [*([encoder] if cell.encoder_key else []), Task(cell.key, place.label, cell.encoder_key)]
