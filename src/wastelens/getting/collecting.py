"""Takes photo after photo, from a catalogue's description to a file in the folder or a reason why not."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from wastelens.data.photos.decode import BadPhotoError
from wastelens.getting.catalogues import Candidate
from wastelens.getting.collected_photos import CollectedPhotos
from wastelens.getting.known_photos import KnownPhotos
from wastelens.getting.rules import (
    NOT_A_PHOTO,
    TYPES,
    CollectedPhoto,
    Reason,
    Rules,
    UnwantedPhotoError,
    read_collected,
)
from wastelens.getting.shared import next_of
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable
from wastelens.web.files import Fetched


@dataclass(frozen=True)
class _Arrival:
    """A candidate whose file has arrived."""

    candidate: Candidate
    fetched: Fetched
    photo: CollectedPhoto


@dataclass(frozen=True)
class _Refusal:
    """A candidate that is left out; temporary: another run should try it again."""

    candidate: Candidate
    reason: Reason
    temporary: bool = False


@dataclass(frozen=True)
class Collector:
    """Keeps photos from those offered until there are enough.

    Several threads fetch photos, but they are judged in the order in which they were offered, so that of two that look
    alike the same one is kept every time.

    Attributes:
        web: the client to fetch with.
        pool: the threads that fetch.
        ahead: how many photos are fetched at once.
        photos: the folder they go to.
        known: photos that they must not repeat.
        rules: which photos are wanted.
        after_each: called after each photo with whether it was kept.
    """

    web: Web
    pool: ThreadPoolExecutor
    ahead: int
    photos: CollectedPhotos
    known: KnownPhotos
    rules: Rules
    after_each: Callable[[bool], None]

    def collect(self, material: str, wanted: int, candidates: Iterable[Candidate]) -> None:
        """Keep photos of a material until there are as many as wanted, or no more are offered.

        Raises:
            NoNetwork: no host at all can be reached.
            OSError: the folder cannot be written.
        """
        worth_fetching = self._worth_fetching(candidates)
        under_way: deque[queue.SimpleQueue[Future[_Arrival | _Refusal]]] = deque()
        while True:
            missing = wanted - self.photos.kept(material)
            room = min(self.ahead, missing) - len(under_way)
            for candidate in itertools.islice(worth_fetching, max(0, room)):
                under_way.append(queue.SimpleQueue())
                self.pool.submit(self._fetch, candidate).add_done_callback(under_way[-1].put)
            if not under_way:
                return
            self.after_each(self._settle(next_of(under_way.popleft()).result()))

    def _worth_fetching(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Yield those that are new and whose description breaks no rule."""
        for candidate in candidates:
            if not self.photos.see(candidate):
                continue
            against = self.rules.reason_against(candidate.licence, (candidate.width, candidate.height))
            if candidate.mime and candidate.mime not in TYPES:
                against = against or Reason(f"{NOT_A_PHOTO}: {candidate.mime}")
            if against is not None:
                self.photos.leave_out(candidate, against)
                self.after_each(False)
            else:
                yield candidate

    def _fetch(self, candidate: Candidate) -> _Arrival | _Refusal:
        draft, told = self.photos.draft(candidate), (candidate.width, candidate.height)
        try:
            fetched = self.web.fetch_file(candidate.photo_url, draft)
            photo = read_collected(draft, self.known.side_px, self.rules, candidate.licence, told)
        except Unfetchable as error:
            return _Refusal(candidate, Reason.of(error), temporary=not error.permanent)
        except UnwantedPhotoError as error:  # a catalogue may have stated another size
            width, height = error.size
            return _Refusal(replace(candidate, width=width, height=height), error.reason)
        except BadPhotoError as error:
            return _Refusal(candidate, Reason(str(error)))
        return _Arrival(candidate, fetched, photo)

    def _settle(self, end: _Arrival | _Refusal) -> bool:
        """Keep a photo or list why not; return whether it was kept."""
        if isinstance(end, _Arrival):
            repeats = self._repeats(end)
            if repeats is None:
                self.known.add(self.photos.keep(end.candidate, end.fetched, end.photo), end.photo.pixels_0_255)
                return True
            end = _Refusal(end.candidate, repeats)
        self.photos.leave_out(end.candidate, end.reason, temporary=end.temporary)
        return False

    def _repeats(self, arrival: _Arrival) -> Reason | None:
        """Return which photo is the same or looks alike, as a reason; None: no photo does."""
        if same := self.photos.same_file(arrival.fetched.sha256):
            return Reason(f"the same file: as {same}")
        near = self.known.repeated_by(arrival.photo.pixels_0_255)
        return Reason(near, "near_duplicate_distance") if near else None
