"""``download``: TACO's annotations and photos as far as they are still available, and a list of those that are not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from wastelens.config.download import DownloadConfig
from wastelens.errors import AnnotationsError, ConfigError, DatasetError, InputError
from wastelens.getting.photo_folder import DONE, FAILED, PhotoFolder, Summary, WantedPhoto, summarise, wanted_photos
from wastelens.getting.shared import MB, Gathered, Speed, check_space, logged_parameters, report_licences
from wastelens.getting.taco import LARGEST_ARCHIVE, USUAL_BYTES, AnnotationsFile, Archive, estimated_bytes, fetch_photos
from wastelens.system import interrupts
from wastelens.system.console import next_command, progress_bar, say, table, warn
from wastelens.system.files import alone_in
from wastelens.tracking.tracker import Tracker
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable
from wastelens.web.files import Part, size_text

LICENCES = "licences.csv"
FOLDER = "data_folder"  # the setting that chooses it
NOTHING_TO_DO = "Nothing to fetch: every photo is there, or known not to be available."


def run(config: DownloadConfig, tracker: Tracker) -> Gathered:
    """Fetch the missing photos.

    Raises:
        InputError: no network, no room on the disk, no usable annotations, another process in the folder, or more
            photos missing than ``max_problem_share``; what was fetched is kept.
    """
    began = time.monotonic()
    _check_source(config)
    folder = config.data_folder / "raw" / ("taco_unofficial" if config.unofficial else "taco")
    with alone_in(folder, FOLDER), tracker.start(f"download {folder.name}", tags={"step": "download"}) as tracked:
        tracked.log_parameters(logged_parameters(config))
        photos, annotations = PhotoFolder(folder), AnnotationsFile(folder, config.annotations)
        with Web(config.web, hosts=config.hosts, contact=config.contact) as web:
            get = _from_archive if config.source == "zenodo" else _from_web
            wanted = get(web, photos, annotations, config)
        photos.remove_placeholders(wanted)
        photos.finish()
        summary = summarise(wanted, photos)
        metrics = {**summary.metrics(), "seconds": time.monotonic() - began}
        tracked.log_metrics(metrics)
        tracked.log_file(photos.list_path)
        tracked.log_table(summary.licences, LICENCES)
        _report(summary, photos)
        summary.check_share(config.max_problem_share)
        _say_what_next(summary, config, folder)
        return Gathered(folder, tracked.id, metrics)


def _check_source(config: DownloadConfig) -> None:
    if config.source == "zenodo" and (config.unofficial or config.size == "640"):
        what = "unofficial=true" if config.unofficial else "size=640"
        raise ConfigError(
            f"source=zenodo has only the official photos at their original size. Drop it, or drop {what}."
        )


def _from_web(web: Web, photos: PhotoFolder, annotations: AnnotationsFile, config: DownloadConfig) -> list[WantedPhoto]:
    setting = "unofficial_url" if config.unofficial else "annotations_url"
    annotations.fetch(web, str(getattr(config, setting)), setting)
    wanted, missing = _wanted_and_missing(annotations, photos, config)
    _check_space_for(missing, photos, lambda photo: min(estimated_bytes(photo, config.size), config.web.max_bytes))
    if missing:
        with progress_bar("Photos", len(missing)) as bar:
            fetch_photos(missing, photos, web, config.workers, Speed(bar).photo)
    else:
        say(NOTHING_TO_DO)
    return wanted


def _check_space_for(
    missing: list[WantedPhoto], photos: PhotoFolder, size_bytes: Callable[[WantedPhoto], float]
) -> None:
    """Check the room for photos to fetch, less the files they replace; size_bytes: estimates the size of one."""
    to_come = [photo for photo in missing if photos.has_to_come(photo)]
    needed = sum(max(0.0, size_bytes(photo) - photos.bytes_there(photo)) for photo in to_come)
    check_space(photos.folder, needed, f"The photos to fetch ({len(to_come):,})", FOLDER)


def _from_archive(
    web: Web, photos: PhotoFolder, annotations: AnnotationsFile, config: DownloadConfig
) -> list[WantedPhoto]:
    with contextlib.suppress(AnnotationsError):  # there may be none yet
        wanted, missing = _wanted_and_missing(annotations, photos, config)
        if not missing:
            say(NOTHING_TO_DO)
            return wanted
    with contextlib.closing(Archive(_fetched_archive(web, photos, config), config.web.max_bytes)) as packed:
        try:
            packed.unpack_annotations(annotations.draft)
            annotations.use_draft(config.archive_url, "archive_url")
        except InputError:
            packed.discard()  # or the next run would unpack it again
            raise
        wanted, missing = _wanted_and_missing(annotations, photos, config)
        _check_space_for(missing, photos, lambda photo: min(packed.bytes_of(photo), config.web.max_bytes))
        with progress_bar("Photos", len(missing)) as bar:
            speed = Speed(bar)
            for photo in missing:
                interrupts.check()
                speed.photo(packed.unpack_photo(photo, photos))
    return wanted


def _fetched_archive(web: Web, photos: PhotoFolder, config: DownloadConfig) -> Path:
    target, url = photos.unfinished("archive.zip"), config.archive_url
    if target.exists():  # an earlier run was interrupted while unpacking it
        return target
    part = Part(target, url)
    there = part.size_bytes() if part.version() else 0
    check_space(photos.folder, max(0, 2 * USUAL_BYTES - there), "The archive and its photos", FOLDER)
    already = f", of which {size_text(there)} are there" if there else ""
    say(f"Fetching {locate(url).shown}, about {size_text(USUAL_BYTES)}{already}.")
    with progress_bar("Archive, MB", USUAL_BYTES // MB) as bar:
        try:
            web.fetch_file(url, target, max_bytes=LARGEST_ARCHIVE, progress=Speed(bar, there).add)
        except Unfetchable as error:
            raise DatasetError(
                f"The archive is not available: {error}. Try again later, another URL with "
                'set="archive_url=URL", or source=web.'
            ) from None
    return target


def _wanted_and_missing(
    annotations: AnnotationsFile, photos: PhotoFolder, config: DownloadConfig
) -> tuple[list[WantedPhoto], list[WantedPhoto]]:
    from_archive = config.source == "zenodo"
    wanted = wanted_photos(annotations.path, config.size, config.archive_url, from_archive=from_archive)
    return wanted, [photo for photo in wanted if not photos.is_settled(photo, retry_dead=config.retry_dead)]


def _report(summary: Summary, photos: PhotoFolder) -> None:
    report_licences(photos.folder, summary.licences)
    if summary.missing:
        reasons = [[reason, f"{count:,}"] for reason, count in summary.missing.most_common()]
        table("Photos that are not available", ["reason", "photos"], reasons)
        say(f"{photos.list_path} lists every photo, and why one is missing.")


def _say_what_next(summary: Summary, config: DownloadConfig, folder: Path) -> None:
    if failed := summary.of_status[FAILED]:
        warn(f"{failed:,} photos may become available: run the command again for them.")
    dataset = folder if config.unofficial else "taco"
    command = next_command("prepare", {"dataset": dataset}, config.data_folder)
    say(f"{summary.of_status[DONE]:,} of {summary.photos:,} photos in {folder}. Next: {command}", "green")
    if config.unofficial:
        command = next_command("pretrain", {"unlabelled": folder}, config.data_folder)
        say(f"To learn from them without their labels: {command}")
