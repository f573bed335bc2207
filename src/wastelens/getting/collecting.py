"""Takes photo after photo, from a catalogue's description to a file in the folder or a reason why not."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from wastelens.data.photos.decode import BadPhotoError
from wastelens.getting.catalogues import Candidate
from wastelens.getting.collected_photos import CollectedPhotos
from wastelens.getting.known_photos import KnownPhotos
from wastelens.getting.rules import NOT_A_PHOTO, TYPES, CollectedPhoto, Reason, UnwantedPhotoError, read_collected
from wastelens.getting.shared import next_of
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable
from wastelens.web.files import Fetched


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
        after_each: called after each photo with whether it was kept.
    """

    web: Web
    pool: ThreadPoolExecutor
    ahead: int
    photos: CollectedPhotos
    known: KnownPhotos
    after_each: Callable[[bool], None]

    def collect(self, material: str, wanted: int, candidates: Iterable[Candidate]) -> None:
        """Keep photos of a material until there are as many as wanted, or no more are offered.

        Raises:
            NoNetwork: no host at all can be reached.
            OSError: the folder cannot be written.
        """
        worth_fetching = self._worth_fetching(candidates)
        under_way: deque[queue.SimpleQueue[Future[Callable[[], bool]]]] = deque()
        while True:
            missing = wanted - self.photos.kept(material)
            room = min(self.ahead, missing) - len(under_way)
            for candidate in itertools.islice(worth_fetching, max(0, room)):
                under_way.append(queue.SimpleQueue())
                self.pool.submit(self._fetch, candidate).add_done_callback(under_way[-1].put)
            if not under_way:
                return
            settle = next_of(under_way.popleft()).result()
            self.after_each(settle())

    def _worth_fetching(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Yield those that are new and whose description breaks no rule."""
        for candidate in candidates:
            if not self.photos.see(candidate):
                continue
            against = self.photos.rules.reason_against(candidate.licence, (candidate.width, candidate.height))
            if candidate.mime and candidate.mime not in TYPES:
                against = against or Reason(f"{NOT_A_PHOTO}: {candidate.mime}")
            if against is not None:
                self.photos.leave_out(candidate, against)
                self.after_each(False)
            else:
                yield candidate

    def _fetch(self, candidate: Candidate) -> Callable[[], bool]:
        """Fetch a photo; return how to settle it when its turn comes, which tells whether it is kept."""
        draft, told = self.photos.draft(candidate), (candidate.width, candidate.height)
        try:
            fetched = self.web.fetch_file(candidate.photo_url, draft)
            photo = read_collected(draft, self.known.side_px, self.photos.rules, candidate.licence, told)
        except Unfetchable as error:
            reason = Reason(error.reason, error.setting)
            return partial(self._leave_out, candidate, reason, temporary=not error.permanent)
        except UnwantedPhotoError as error:  # a catalogue may have stated another size
            width, height = error.size
            return partial(self._leave_out, replace(candidate, width=width, height=height), error.reason)
        except BadPhotoError as error:
            return partial(self._leave_out, candidate, Reason(str(error)))
        return partial(self._keep_unless_known, candidate, fetched, photo)

    def _keep_unless_known(self, candidate: Candidate, fetched: Fetched, photo: CollectedPhoto) -> bool:
        if same := self.photos.same_file(fetched.sha256):
            return self._leave_out(candidate, Reason(f"the same file: as {same}"))
        if near := self.known.repeated_by(photo.pixels_0_255):
            return self._leave_out(candidate, Reason(near, "near_duplicate_distance"))
        self.known.add(self.photos.keep(candidate, fetched, photo), photo.pixels_0_255)
        return True

    def _leave_out(self, candidate: Candidate, reason: Reason, *, temporary: bool = False) -> bool:
        self.photos.leave_out(candidate, reason, temporary=temporary)
        return False
