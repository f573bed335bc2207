"""``collect``: photos without labels, by search terms for each material, from catalogues that state their licences."""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wastelens.config.collect import CollectConfig
from wastelens.config.files import load_config
from wastelens.config.pretrain import PretrainConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.photos.cache import PhotoCache
from wastelens.data.photos.files import PHOTO_SUFFIXES, files_below
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.getting.catalogues import Catalogue, Catalogues
from wastelens.getting.collected_photos import CollectedPhotos, report, summary_metrics, wanted_materials
from wastelens.getting.collecting import Collector
from wastelens.getting.commons import Commons
from wastelens.getting.known_photos import KnownPhotos, judged_photos
from wastelens.getting.licences import ATTRIBUTION, check_attribution, write_attribution
from wastelens.getting.openverse import Openverse
from wastelens.getting.rules import Rules
from wastelens.getting.shared import Gathered, Speed, check_space, logged_parameters
from wastelens.system.console import next_command, progress_bar, say, warn
from wastelens.system.files import alone_in
from wastelens.system.machine import worker_count
from wastelens.tracking.tracker import Tracker
from wastelens.training.unlabelled import MAX_MEGAPIXELS, UNLABELLED_CACHE, decode_folder
from wastelens.web.client import Web

AHEAD_PER_WORKER = 2
FOLDER = "folder"  # the setting that chooses it
USUAL_BYTES = 3_000_000  # of a photo on Commons; on Flickr it is less
CATALOGUES: dict[str, type[Catalogue]] = {"openverse": Openverse, "commons": Commons}


def run(config: CollectConfig, tracker: Tracker) -> Gathered:
    """Collect photos until there are enough of each material, or the catalogues have no more.

    Raises:
        InputError: no contact, an unknown or unusable material, no prepared dataset, no network, no room on the disk,
            no catalogue that answers, another process in the folder, or the user's own ATTRIBUTION.md in it; what was
            collected is kept.
    """
    began = time.monotonic()
    materials = wanted_materials(config)
    dataset = open_dataset(config.dataset, config.data_folder)
    folder = Path(config.folder) if config.folder else config.data_folder / "raw" / "collected"
    with alone_in(folder, FOLDER), tracker.start("collect", tags={"step": "collect"}) as tracked:
        tracked.log_parameters(logged_parameters(config))
        check_attribution(folder)
        photos = CollectedPhotos(folder, Rules(config))
        try:
            bad_records = _collect(photos, materials, dataset, config)
        finally:
            _write_lists(photos)
        metrics = {**summary_metrics(photos, materials, bad_records), "seconds": time.monotonic() - began}
        tracked.log_metrics(metrics)
        tracked.set_tags({"dataset": dataset.name, "dataset_digest": dataset.digest})
        if photos.list_path.exists():
            tracked.log_file(photos.list_path)
            tracked.log_file(folder / ATTRIBUTION)
        report(photos, materials, config.photos)
        if photos.kept_rows():
            command = next_command("pretrain", {"dataset": config.dataset, "unlabelled": folder}, config.data_folder)
            say(f"Next: {command}", "green")
        return Gathered(folder, tracked.id, metrics)


def _collect(
    photos: CollectedPhotos, materials: tuple[str, ...], dataset: PreparedDataset, config: CollectConfig
) -> int:
    """Fill the folder; return the number of malformed records in the catalogues."""
    if not (missing := _missing(photos, materials, config)):
        say(f"Nothing to collect: {config.photos:,} photos of each material are there.")
        return 0
    check_space(photos.folder, min(USUAL_BYTES, config.web.max_bytes) * missing, f"{missing:,} photos", FOLDER)
    known = _known(photos, dataset, config)
    if repeats := known.repeat_judged():
        shown = f"{repeats:,} photos in {photos.folder} repeat val or test photos of {dataset.name}"
        warn(f"{shown}; pretrain leaves them out.")
    with (
        progress_bar("Photos", missing) as bar,
        warnings.catch_warnings(),
        ThreadPoolExecutor(config.workers) as pool,
        Web(config.web, hosts=config.hosts, contact=config.contact) as web,
    ):
        warnings.simplefilter("ignore")  # Pillow's about broken photos; here, as threads share the filters
        catalogues = Catalogues([CATALOGUES[name](web, config) for name in dict.fromkeys(config.sources)])
        ahead, show = AHEAD_PER_WORKER * config.workers, Speed(bar).kept
        collector = Collector(web, pool, ahead, photos, known, show)
        for material in materials:
            collector.collect(material, config.photos, catalogues.candidates(material, config.terms[material]))
    photos.remove_unfinished()
    if _missing(photos, materials, config):
        catalogues.check()
    for name, reason in catalogues.down.items():
        warn(f"{name} became unavailable ({reason}). Run the command again later for its other photos.")
    for name, count in catalogues.bad_records.items():
        warn(f"{name}: {count:,} malformed records were skipped.")
    return sum(catalogues.bad_records.values())


def _missing(photos: CollectedPhotos, materials: tuple[str, ...], config: CollectConfig) -> int:
    """Return how many photos are missing."""
    return sum(max(0, config.photos - photos.kept(material)) for material in materials)


def _known(photos: CollectedPhotos, dataset: PreparedDataset, config: CollectConfig) -> KnownPhotos:
    """Return val and test photos and those in the folder, decoded to where ``pretrain`` will look for them."""
    learning = load_config("pretrain")
    assert isinstance(learning, PretrainConfig)
    judged = judged_photos(dataset.at_side(learning.image_side_px))
    found = (path for path, error in files_below(photos.folder) if error is None)
    names = sorted(
        path.relative_to(photos.folder).as_posix() for path in found if path.suffix.lower() in PHOTO_SUFFIXES
    )
    if not names:
        return KnownPhotos(judged, PhotoRows([(judged, [])]), [], config.near_duplicate_distance)
    like = PhotoCache(Path(), judged.side_px, MAX_MEGAPIXELS)
    with progress_bar("Photos already there", len(names)) as bar:
        cache_folder = dataset.folder.parent / UNLABELLED_CACHE
        decoded = decode_folder(photos.folder, names, cache_folder, like, worker_count("auto"), bar.advance)
    rows = [row for row, problem in enumerate(decoded.problems) if not problem]
    there = PhotoRows([(decoded.photos, rows)])
    return KnownPhotos(judged, there, [names[row] for row in rows], config.near_duplicate_distance)


def _write_lists(photos: CollectedPhotos) -> None:
    """Write ``collected.csv`` and ``ATTRIBUTION.md``, unless there is nothing to list."""
    photos.finish()
    if photos.list_path.exists():
        write_attribution(photos.folder, photos.kept_rows())
