"""The figures that describe a prepared dataset: metrics of the run, and the closing tables and warnings."""

from __future__ import annotations

import contextlib
from pathlib import Path

from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.sources import DatasetSource
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import PreparedDatasetError
from wastelens.evaluation.controls import neighbour_warning
from wastelens.preparing.groups import coarser_grouping
from wastelens.preparing.writing import Preparation
from wastelens.system.console import next_command, say, table, warn
from wastelens.tracking.tracker import run_note


def warn_of_replacing(folder: Path, source: DatasetSource, image_side_px: int) -> None:
    """Warn if a folder holds a dataset of the same name with photos of other raw data, or of another size."""
    with contextlib.suppress(PreparedDatasetError):
        manifest = prepared.load_prepared(folder).manifest
        before, side_px = manifest["source"], manifest["cache"]["image_side_px"]
        if before != str(source.place.resolve()):
            warn(f"{folder} was prepared from {before} and will be replaced. To keep both, stop, and give name=NAME.")
        elif side_px != image_side_px:
            warn(
                f"{folder} has photos of {side_px} px and will be replaced: models trained on it can then neither be "
                "explained nor resumed. To keep both, stop, and give name=NAME."
            )


def metrics(dataset: PreparedDataset, made: Preparation) -> dict[str, float]:
    """Return the metrics to compare preparations by: counts, the split's evenness, balance, and the controls."""
    counts, split, balance = (dataset.manifest[name] for name in ("counts", "split", "balance"))
    photos = {name: counts[name] for name in prepared.SPLITS} | counts["materials"]
    return {
        "photos": counts["photos"],
        "photos/left_out": counts["photos_left_out"],
        "objects": counts["objects"],
        **{f"photos/{name}": count for name, count in photos.items()},
        **{f"split/{name}": split[name] for name in ("groups", "largest_share_difference")},
        "split/near_duplicate_pairs": split["near_duplicate_pairs"],
        **({} if split["augmented_pairs"] is None else {"split/augmented_pairs": split["augmented_pairs"]}),
        **{f"split/{name}": split[name] for name in ("photos_sharing_a_named_source", "groups_in_several_splits")},
        **{f"balance/{name}": balance[name] for name in ("rows_before", "rows_after", "most_copies")},
        "balance/smallest_share": min(made.tables.balanced[0].share_of_commonest.values()),
        **made.tables.controls[0].metrics(),
    }


def report(dataset: PreparedDataset, made: Preparation) -> None:
    """Print the closing tables, the warnings, and the next command."""
    _report_split(dataset, made)
    _report_controls(made, dataset.manifest["layout"])
    if left_out := made.cached.left_out:
        problems = made.cached.problems
        first = problems[problems["problem"].str.startswith("photo left out")].iloc[0]
        warn(
            f"{left_out:,} photos were left out, the first {first['source_file']} "
            f"({first['problem'].removeprefix('photo left out: ')}); "
            f"{dataset.folder / prepared.PROBLEMS} gives the reason for each."
        )
    say(f"Prepared {len(dataset.frame):,} photos in {dataset.folder}. Next: {_train_command(dataset)}", "green")


def about(run_id: str, dataset: PreparedDataset, made: Preparation) -> dict[str, str]:
    """Return the tag that describes the run: the dataset in figures, what a model must beat, and the next command."""
    controls = made.tables.controls[0].macro_ap
    strongest = max(controls, key=lambda name: controls[name]["test"])
    parts = ", ".join(f"{(made.split.frame['split'] == name).sum():,} {name}" for name in prepared.SPLITS)
    return run_note(
        run_id,
        f"**{len(dataset.frame):,} photos of {dataset.name}: {parts}; {len(made.mapping.materials)} materials.** "
        f"Without looking at the litter, test macro AP {controls[strongest]['test']:.3f} can be reached ({strongest}): "
        "a model must beat that.",
        command=_train_command(dataset),
        pictures=["sight/contact_sheet.png", "sight/photos_per_material.png"],
    )


def _train_command(dataset: PreparedDataset) -> str:
    settings = dataset.manifest["settings"]
    named = settings["name"] or settings["dataset"]
    return next_command("train", {"dataset": named}, Path(settings["data_folder"]))


def _report_split(dataset: PreparedDataset, made: Preparation) -> None:
    assignment, balanced, frame = made.split.assignment, made.tables.balanced[0], made.split.frame
    materials = list(made.mapping.materials)
    parts = {name: frame[frame["split"] == name] for name in prepared.SPLITS}
    parts["train, balanced"] = balanced.table.frame
    rows = [[name, f"{len(of):,}", *(f"{share:.1%}" for share in of[materials].mean())] for name, of in parts.items()]
    title = f"{dataset.name}: photos, and the share of them that shows each material"
    table(title, ["split", "photos", *materials], rows)
    say(
        f"{frame['group'].nunique():,} groups ({made.split.groups.rule}); {assignment.method} split, largest "
        f"difference of a material's share {100 * assignment.largest_share_difference:.1f} percentage points. "
        f"Balanced: {balanced.rows_before:,} → {balanced.rows_after:,} rows, at most {balanced.most_copies} copies."
    )
    for note in made.split.groups.merged:
        say(note)
    _report_copies(made)


def _report_copies(made: Preparation) -> None:
    """Print what was checked for leaks, and what was found."""
    split, copies = made.split, made.split.groups.copies
    photos, sources = copies.named_photos()
    if photos:
        say(f"By their names, {photos:,} photos come from {sources:,} sources; those of one source are one group.")
    if len(copies.by_content):
        say(
            f"By their pixels, {len(copies.near_duplicates):,} pairs are near-duplicates and {len(copies.warped):,} "
            "are augmented copies; sight/near_duplicates.png in this run shows the most similar."
        )
    if split.assignment.method == "given":
        _report_given(made)
        return
    kinds = ["saved again, mirrored or turned by quarters"]
    kinds += ["turned by some degrees, cropped, sheared or in other light"] if made.checked_warps else []
    say(f"No copy that was found is in two splits. Looked for: names of one source; photos {', or '.join(kinds)}.")


def _report_given(made: Preparation) -> None:
    split = made.split
    groups = split.frame["group"].nunique()
    for name in split.made:
        photos = (split.frame["split"] == name).sum()
        say(f"The data came without {name}: {photos:,} photos of train became {name}, in whole groups.")
    if not split.torn:
        say(f"The data's own split was kept; none of the {groups:,} sources that were found is in several splits.")
        return
    group, where = next(iter(split.torn.items()))
    photos = split.frame["group"].isin(split.torn).sum()
    warn(
        f"The data's own split was kept: {len(split.torn):,} of {groups:,} sources are in several splits, such as "
        f"{group} in {' and '.join(where)}, so val and test promise too much. {prepared.PROBLEMS} lists their "
        f"{photos:,} photos; split=made keeps sources whole."
    )


def _report_controls(made: Preparation, layout: str) -> None:
    controls = made.tables.controls[0]
    rows = [
        [name, *(f"{controls.macro_ap[name][split]:.3f}" for split in ("val", "test"))] for name in controls.macro_ap
    ]
    table("Controls: predictions without looking at the litter (macro AP)", ["control", "val", "test"], rows)
    if controls.note:
        say(controls.note)
    files, rule = made.split.frame["source_file"].tolist(), made.split.groups.rule
    if warning := neighbour_warning(controls, coarser_grouping(files, rule, folders_are_batches=layout == COCO)):
        warn(warning)
