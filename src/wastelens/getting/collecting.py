"""Photo after photo, from a catalogue's word to a file in the folder or a reason why not."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from wastelens.data.photos.decode import BadPhotoError
from wastelens.getting.catalogues import Candidate
from wastelens.getting.collectable import (
    KINDS,
    NEAR_DUPLICATE_DISTANCE,
    NO_PHOTO,
    CollectedPhoto,
    Reason,
    Rules,
    UnwantedPhotoError,
    read_collected,
)
from wastelens.getting.collected_photos import CollectedPhotos
from wastelens.getting.known_photos import KnownPhotos
from wastelens.getting.parallel import result_of
from wastelens.web.client import Fetched, Web
from wastelens.web.errors import Unfetchable


@dataclass(frozen=True)
class _Arrival:
    """A candidate that has become a file and its photo."""

    candidate: Candidate
    fetched: Fetched
    photo: CollectedPhoto


@dataclass(frozen=True)
class _Refusal:
    """A candidate that nothing can become of; passing: at another call it may."""

    candidate: Candidate
    reason: Reason
    passing: bool = False


@dataclass(frozen=True)
class Collector:
    """Takes what it is offered until there is enough.

    Photos are fetched by several threads, and judged in the order in which they were offered, so that of two that
    look alike the same one is kept every time.

    Attributes:
        web: where photos come from.
        pool: fetches them.
        ahead: how many are on their way at once.
        photos: the folder they go to.
        known: what they must not repeat.
        rules: what is wanted.
        after_each: is told after each photo whether it was kept.
    """

    web: Web
    pool: ThreadPoolExecutor
    ahead: int
    photos: CollectedPhotos
    known: KnownPhotos
    rules: Rules
    after_each: Callable[[bool], None]

    def collect(self, material: str, wanted: int, candidates: Iterable[Candidate]) -> None:
        """Take photos of a material until so many are there, or no more are offered.

        Raises:
            NoNetwork: nobody at all can be reached.
            OSError: the folder cannot be written.
        """
        worth_fetching = self._worth_fetching(candidates)
        on_their_way: deque[Future[_Arrival | _Refusal]] = deque()
        while True:
            missing = wanted - self.photos.kept(material)
            room = min(self.ahead, missing) - len(on_their_way)
            for candidate in itertools.islice(worth_fetching, max(0, room)):
                on_their_way.append(self.pool.submit(self._fetch, candidate))
            if not on_their_way:
                return
            self.after_each(self._settle(result_of(on_their_way.popleft())))

    def _worth_fetching(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that are new, and that nothing their catalogue says of them is against."""
        for candidate in candidates:
            if not self.photos.see(candidate):
                continue
            against = self.rules.reason_against(candidate.licence, (candidate.width, candidate.height))
            if candidate.mime and candidate.mime not in KINDS:
                against = against or Reason(f"{NO_PHOTO}: {candidate.mime}")
            if against is not None:
                self.photos.leave_out(candidate, against)
                self.after_each(False)
            else:
                yield candidate

    def _fetch(self, candidate: Candidate) -> _Arrival | _Refusal:
        draft, told = self.photos.draft(candidate), (candidate.width, candidate.height)
        try:
            fetched = self.web.fetch_file(candidate.photo_url, draft, kinds=("image/",))
            photo = read_collected(draft, self.known.side_px, self.rules, candidate.licence, told)
        except Unfetchable as error:
            return _Refusal(candidate, Reason.of(error), passing=not error.lasting)
        except UnwantedPhotoError as error:  # a catalogue may have told another size
            width, height = error.size
            return _Refusal(replace(candidate, width=width, height=height), error.reason)
        except BadPhotoError as error:
            return _Refusal(candidate, Reason(str(error)))
        return _Arrival(candidate, fetched, photo)

    def _settle(self, end: _Arrival | _Refusal) -> bool:
        """Keep a photo, or list why not; whether it was kept."""
        if isinstance(end, _Refusal):
            self.photos.leave_out(end.candidate, end.reason, passing=end.passing)
            return False
        repeats = self._repeats(end)
        if repeats is not None:
            self.photos.leave_out(end.candidate, repeats)
            return False
        pixels = end.photo.pixels_0_255
        self.known.add(self.photos.keep(end.candidate, end.fetched, end.photo), pixels)
        return True

    def _repeats(self, arrival: _Arrival) -> Reason | None:
        """Which photo is the same, or looks alike."""
        same = self.photos.same_file(arrival.fetched.sha256)
        if same:
            return Reason(f"the same file: as {same}")
        near = self.known.repeated_by(arrival.photo.pixels_0_255)
        return Reason(near, NEAR_DUPLICATE_DISTANCE) if near else None
