"""``collect``: photos without labels, by search terms for each material, from catalogues that tell their licences."""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wastelens.config import flatten
from wastelens.console import Bar, progress_bar, say, table, warn
from wastelens.data.opening import open_dataset
from wastelens.data.photo_cache import PhotoCache
from wastelens.data.photo_files import PHOTO_SUFFIXES, files_below
from wastelens.data.photo_rows import PhotoRows
from wastelens.data.preparation import worker_count
from wastelens.data.prepared import PreparedDataset
from wastelens.data.unlabelled import UNLABELLED_CACHE, decode_folder
from wastelens.errors import ConfigError, did_you_mean
from wastelens.folder_lock import alone_in
from wastelens.getting.attribution import ATTRIBUTION, licence_name, write_attribution
from wastelens.getting.catalogues import Catalogue, Catalogues
from wastelens.getting.collectable import Rules
from wastelens.getting.collected_photos import FAILED, KEPT, LEFT_OUT, CollectedPhotos
from wastelens.getting.collecting import Collector
from wastelens.getting.commons import Commons, Largest
from wastelens.getting.known_photos import KnownPhotos, judged_photos
from wastelens.getting.openverse import Openverse
from wastelens.getting.space import check_space
from wastelens.getting_config import CollectConfig
from wastelens.steps.next_commands import next_command
from wastelens.tracking import Run, Tracker
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable

REASONS_SHOWN = 4
AHEAD_PER_WORKER = 2
FOLDER = "folder"  # the setting that chooses it
USUAL_BYTES = 3_000_000  # of a photo on Commons; on Flickr it is less
MOST_MEGAPIXELS = 200.0  # as pretrain has it, so that what is decoded here will do there


@dataclass(frozen=True)
class Collected:
    """What ``collect`` has brought: the folder, the run that tells of it, and what was logged there."""

    folder: Path
    run_id: str
    metrics: dict[str, float]


def run(config: CollectConfig, tracker: Tracker) -> Collected:
    """Collect photos until there are enough of each material, or the catalogues have no more.

    Raises:
        InputError: no contact, an unknown material, no prepared dataset, no network, no room on the disk, no catalogue
            that answers, or another process at the same folder; what was collected stays.
    """
    began = time.monotonic()
    materials = _materials(config)
    dataset = open_dataset(config.dataset, config.data_folder)
    folder = Path(config.folder) if config.folder else config.data_folder / "raw" / "collected"
    with alone_in(folder, FOLDER), tracker.start("collect", tags={"step": "collect"}) as tracked:
        tracked.log_parameters(_parameters(config))
        photos = CollectedPhotos(folder, _rules(config))
        try:
            bad_records = _collect(photos, materials, dataset, config)
        finally:
            _write_lists(photos)
        metrics = {**_metrics(photos, materials, bad_records), "seconds": time.monotonic() - began}
        _log(tracked, photos, dataset, metrics)
        _report(photos, materials, config)
        return Collected(folder, tracked.id, metrics)


def _materials(config: CollectConfig) -> tuple[str, ...]:
    """Those that are to be collected.

    Raises:
        ConfigError: there are no terms for one, or nobody who could be written to.
    """
    if not config.contact:
        raise ConfigError(
            "contact is empty, but Wikimedia's User-Agent policy asks for an address. Give your e-mail address or a "
            "page: -P contact=you@example.org"
        )
    for material in config.materials:
        if material not in config.terms:
            known = list(config.terms)
            raise ConfigError(
                f"materials: there are no terms for '{material}', only for {', '.join(known)}."
                f"{did_you_mean(material, known)}"
            )
    return tuple(dict.fromkeys(config.materials or config.terms))


def _rules(config: CollectConfig) -> Rules:
    return Rules(config.licences, config.min_side_px, config.max_megapixels)


def _parameters(config: CollectConfig) -> dict[str, object]:
    """The settings, without what a URL may hold beside host and path, and without who collects."""
    settings: dict[str, object] = dict(flatten(config))
    del settings["contact"]
    for name in ("openverse.url", "commons.url"):
        try:
            settings[name] = locate(str(settings[name])).shown
        except Unfetchable:  # said when it is asked for
            del settings[name]
    return settings


def _collect(
    photos: CollectedPhotos, materials: tuple[str, ...], dataset: PreparedDataset, config: CollectConfig
) -> int:
    """Fill the folder; returns how many of the catalogues' records made no sense."""
    if not (missing := _missing(photos, materials, config)):
        say(f"Nothing to collect: {config.photos:,} photos of each material are there.")
        return 0
    check_space(photos.folder, min(USUAL_BYTES, config.web.max_bytes) * missing, f"{missing:,} photos", FOLDER)
    known = _known(photos, dataset, config)
    with (
        progress_bar("Photos", missing) as bar,
        warnings.catch_warnings(),
        ThreadPoolExecutor(config.workers) as pool,
        Web(config.web, hosts=config.hosts, contact=config.contact) as web,
    ):
        warnings.simplefilter("ignore")  # Pillow's of broken photos; here, as threads share the filters
        catalogues = _catalogues(web, config)
        ahead, show = AHEAD_PER_WORKER * config.workers, _Progress(bar).after_each
        collector = Collector(web, pool, ahead, photos, known, _rules(config), show)
        for material in materials:
            collector.collect(material, config.photos, catalogues.candidates(material, config.terms[material]))
    photos.remove_drafts()
    if _missing(photos, materials, config):
        catalogues.check()
    _tell(catalogues)
    return sum(catalogues.bad_records.values())


def _missing(photos: CollectedPhotos, materials: tuple[str, ...], config: CollectConfig) -> int:
    """How many photos are wanted."""
    return sum(max(0, config.photos - photos.kept(material)) for material in materials)


def _catalogues(web: Web, config: CollectConfig) -> Catalogues:
    largest = Largest(config.max_megapixels, config.web.max_bytes)
    built: dict[str, Catalogue] = {
        "openverse": Openverse(web, config.openverse, config.licences),
        "commons": Commons(web, config.commons, config.licences, largest),
    }
    return Catalogues([built[name] for name in dict.fromkeys(config.sources)])


def _known(photos: CollectedPhotos, dataset: PreparedDataset, config: CollectConfig) -> KnownPhotos:
    """Val and test photos, and what is in the folder; that is decoded where ``pretrain`` will look for it."""
    judged = judged_photos(dataset)
    found = (path for path, error in files_below(photos.folder) if error is None)
    names = sorted(
        path.relative_to(photos.folder).as_posix() for path in found if path.suffix.lower() in PHOTO_SUFFIXES
    )
    if not names:
        return KnownPhotos(judged, PhotoRows([(judged, [])]), photos.folder, [], config.near_duplicate_distance)
    like = PhotoCache(Path(), judged.side_px, MOST_MEGAPIXELS)
    with progress_bar("Photos that are there", len(names)) as bar:
        cache_folder = dataset.folder.parent / UNLABELLED_CACHE
        decoded = decode_folder(photos.folder, names, cache_folder, like, worker_count("auto"), bar.advance)
    rows = [row for row, problem in enumerate(decoded.problems) if not problem]
    there = PhotoRows([(decoded.photos, rows)])
    return KnownPhotos(judged, there, photos.folder, [names[row] for row in rows], config.near_duplicate_distance)


class _Progress:
    """How many were looked at, and how fast, behind a progress bar of those that were kept."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._began = time.monotonic()
        self._looked_at = self._kept = 0

    def after_each(self, kept: bool) -> None:
        """A photo was kept or left out."""
        self._looked_at += 1
        self._kept += kept
        self._bar.advance(int(kept))
        rate = self._looked_at / (time.monotonic() - self._began)
        self._bar.show(f"{self._kept:,} kept of {self._looked_at:,} looked at, {rate:.1f} photos/s")


def _tell(catalogues: Catalogues) -> None:
    for name, reason in catalogues.down.items():
        warn(f"{name} could not be used to the end ({reason}). Call again later for what it may have.")
    for name, count in catalogues.bad_records.items():
        warn(f"{name}: {count:,} records made no sense and were skipped.")


def _write_lists(photos: CollectedPhotos) -> None:
    photos.finish()
    write_attribution(photos.folder, [row for row in photos.rows() if row["status"] == KEPT])


def _metrics(photos: CollectedPhotos, materials: tuple[str, ...], bad_records: int) -> dict[str, float]:
    rows = photos.rows()
    of_status = Counter(row["status"] for row in rows)
    return {
        "photos": of_status[KEPT],
        "photos_left_out": of_status[LEFT_OUT],
        "photos_failed": of_status[FAILED],
        "bad_records": bad_records,
        "megabytes": sum(_bytes(row) for row in rows) / 1e6,
        **{f"photos_{material}": photos.kept(material) for material in materials},
    }


def _bytes(row: dict[str, str]) -> int:
    return int(row["bytes"]) if row["status"] == KEPT and row["bytes"].isdecimal() else 0


def _log(tracked: Run, photos: CollectedPhotos, dataset: PreparedDataset, metrics: dict[str, float]) -> None:
    tracked.log_metrics(metrics)
    tracked.set_tags({"dataset": dataset.name, "dataset_digest": dataset.digest})
    tracked.log_file(photos.list_path)
    tracked.log_file(photos.folder / ATTRIBUTION)


def _report(photos: CollectedPhotos, materials: tuple[str, ...], config: CollectConfig) -> None:
    """The closing tables, what is missing, and what to type next."""
    _report_reasons(photos, materials)
    _report_licences(photos)
    for material in materials:
        if (kept := photos.kept(material)) < config.photos:
            warn(
                f'{material}: {kept:,} of {config.photos:,} photos; more terms in set="terms.{material}=[…]" may help.'
            )
    total = sum(row["status"] == KEPT for row in photos.rows())
    if total:
        say(
            f"{total:,} photos in {photos.folder}; {photos.list_path} tells of each, {ATTRIBUTION} whom to name.",
            "green",
        )
        parameters = {"dataset": config.dataset, "unlabelled": photos.folder}
        say(f"Next: {next_command('pretrain', parameters, config.data_folder)}", "green")


def _report_reasons(photos: CollectedPhotos, materials: tuple[str, ...]) -> None:
    """Material by what became of its photos: kept, or left out for one of the commonest kinds of reasons."""
    against = Counter((row["material"], _kind(row["reason"])) for row in photos.rows() if row["status"] != KEPT)
    kinds: Counter[str] = Counter()
    for (_, kind), count in against.items():
        kinds[kind] += count
    shown = [kind for kind, _ in kinds.most_common(REASONS_SHOWN)]
    others = len(kinds) > len(shown)
    rows = []
    for material in materials:
        counts = [against[material, kind] for kind in shown]
        rest = sum(count for (of, _), count in against.items() if of == material) - sum(counts)
        rows.append(
            [material, *(f"{count:,}" for count in (photos.kept(material), *counts, *([rest] if others else [])))]
        )
    table(
        f"{photos.folder}: photos kept and left out", ["material", "kept", *shown, *(["other"] if others else [])], rows
    )


def _kind(reason: str) -> str:
    """A reason without its particulars."""
    return re.split(r"[:(]", reason)[0].strip()


def _report_licences(photos: CollectedPhotos) -> None:
    kept = [row for row in photos.rows() if row["status"] == KEPT]
    counts, sizes = Counter(licence_name(row) for row in kept), Counter[str]()
    for row in kept:
        sizes[licence_name(row)] += _bytes(row)
    rows = [[name, f"{count:,}", f"{sizes[name] / 1e6:,.1f}"] for name, count in counts.most_common()]
    table(f"{photos.folder}: photos by licence", ["licence", "photos", "MB"], rows)
