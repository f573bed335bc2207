"""Photo after photo, from a catalogue's word to a file in the folder or a reason why not."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from wastelens import interrupts
from wastelens.data.photos import BadPhotoError
from wastelens.getting.catalogues import Candidate
from wastelens.getting.collectable import KINDS, NO_PHOTO, CollectedPhoto, Rules, UnwantedPhotoError, read_collected
from wastelens.getting.collected_photos import CollectedPhotos
from wastelens.getting.known_photos import KnownPhotos
from wastelens.web.client import Fetched, Web
from wastelens.web.errors import Unfetchable

_LISTENING_S = 0.2


@dataclass(frozen=True)
class _Arrival:
    """What has become of a candidate: a file and its photo, or a reason against it."""

    candidate: Candidate
    fetched: Fetched | None = None
    photo: CollectedPhoto | None = None
    reason: str = ""
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
        on_their_way: deque[Future[_Arrival]] = deque()
        while True:
            missing = wanted - self.photos.kept(material)
            room = min(self.ahead, missing) - len(on_their_way)
            for candidate in itertools.islice(worth_fetching, max(0, room)):
                on_their_way.append(self.pool.submit(self._fetch, candidate))
            if not on_their_way:
                return
            self.after_each(self._settle(_result(on_their_way.popleft())))

    def _worth_fetching(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those that are new, and that nothing their catalogue says of them is against."""
        for candidate in candidates:
            if not self.photos.see(candidate):
                continue
            against = self.rules.reason_against(candidate.licence, (candidate.width, candidate.height))
            if candidate.mime and candidate.mime not in KINDS:
                against = against or f"{NO_PHOTO}: {candidate.mime}"
            if against:
                self.photos.leave_out(candidate, against)
                self.after_each(False)
            else:
                yield candidate

    def _fetch(self, candidate: Candidate) -> _Arrival:
        draft = self.photos.draft(candidate)
        try:
            fetched = self.web.fetch_file(candidate.photo_url, draft, kinds=("image/",))
            photo = read_collected(draft, self.known.side_px, self.rules, candidate.licence)
        except Unfetchable as error:
            return _Arrival(candidate, reason=error.reason, passing=not error.lasting)
        except UnwantedPhotoError as error:  # a catalogue may have told another size
            width, height = error.size
            return _Arrival(replace(candidate, width=width, height=height), reason=str(error))
        except BadPhotoError as error:
            return _Arrival(candidate, reason=str(error))
        return _Arrival(candidate, fetched, photo)

    def _settle(self, arrival: _Arrival) -> bool:
        """Keep a photo, or list why not; whether it was kept."""
        candidate, fetched, photo = arrival.candidate, arrival.fetched, arrival.photo
        if fetched is None or photo is None:
            self.photos.leave_out(candidate, arrival.reason, passing=arrival.passing)
            return False
        same = self.photos.same_file(fetched.sha256)
        repeats = f"the same file: as {same}" if same else self.known.repeated_by(photo.pixels_0_255)
        if repeats:
            self.photos.leave_out(candidate, repeats)
            return False
        self.known.add(self.photos.keep(candidate, fetched, photo), photo.pixels_0_255)
        return True


def _result(future: Future[_Arrival]) -> _Arrival:
    """Not without a timeout: a signal that another thread gets would not be seen before the photo has come."""
    while not wait([future], _LISTENING_S).done:
        interrupts.check()
    return future.result()
