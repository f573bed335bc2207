"""The findings of a study in words: numbers as text, the verdict, what would decide it, checks and warnings."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from wastelens.evaluation.paired import ALL_MODELS, MACRO_AP
from wastelens.evaluation.spread import SIGNIFICANCE, ChangeVerdict
from wastelens.studies.results import FINISHED

Row = Mapping[Hashable, Any]

UNKNOWN = "–"
SEVERAL = "settings"  # the factor's name where arms differ in several settings
_NAMED_IN_A_LINE = 5
_ONE_SEED = "one seed per fold does not show how results vary between trainings"
_SAME_FLOOR = 1e-9  # floors of the same labels differ by rounding alone


@dataclass(frozen=True)
class Finding:
    """The finding of one comparison: a sentence with its numbers, its verdict or "", and what would decide it or ""."""

    text: str
    verdict: str
    decider: str = ""


@dataclass(frozen=True)
class Caution:
    """The outcome of a check: a warning, or a note that all is well; cells: names and run ids of those concerned."""

    text: str
    cells: Sequence[tuple[str, str]] = ()
    grave: bool = True

    @property
    def line(self) -> str:
        """The text, followed by the names of the first few cells."""
        if not self.cells:
            return self.text
        names = [name for name, _ in self.cells[:_NAMED_IN_A_LINE]]
        more = len(self.cells) - len(names)
        return f"{self.text} They are: {'; '.join(names)}{f'; and {more} more' if more else ''}."


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a frame, column → value."""
    return list(frame.to_dict("records"))


def macro_ap_rows(comparisons: pd.DataFrame) -> list[Row]:
    """Return the comparisons on macro AP, which the verdict is about."""
    return rows_of(comparisons[comparisons["metric"] == MACRO_AP])


def number(value: float, decimals: int = 3) -> str:
    """Return ``0.312``, or a dash where the value is unknown; zero has no sign."""
    return f"{value:z,.{decimals}f}" if _known(value) else UNKNOWN


def signed(value: float) -> str:
    """Return ``+0.012``, or a dash where the value is unknown."""
    return f"{value:+z.3f}" if _known(value) else UNKNOWN


def difference(row: Row, prefix: str = "") -> str:
    """Return ``+0.012 [-0.004, +0.028]``, or the reason why there is no interval; prefix: of the columns to read."""
    value, low, high = (row[f"{prefix}{name}"] for name in ("difference", "low", "high"))
    if not _known(value):
        return UNKNOWN
    if _known(low) and _known(high):
        return f"{signed(value)} [{signed(low)}, {signed(high)}]"
    if prefix:  # the standard error is that of all pairs; it says nothing about the pairs without collapsed cells
        return f"{signed(value)} (no interval)"
    reason = "the same in every resample" if _known(row["standard_error"]) else "too few groups of photos"
    return f"{signed(value)} (no interval: {reason})"


def p_value(value: float) -> str:
    """Return ``0.041``, or ``< 0.001``, or a dash where it is unknown."""
    if not _known(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_p(row: Row) -> str:
    """Return ``, p 0.041``, to follow a difference; "" where it is unknown."""
    return f", p {p_value(row['p_adjusted'])}" if _known(row["p_adjusted"]) else ""


def counted(count: float, what: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{int(count):,} {what}{'' if count == 1 else 's'}"


def joined(parts: Iterable[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def arm_name(factor: str, level: object) -> str:
    """Return ``augment=true``; where arms differ in several settings, the level itself spells them out."""
    return str(level) if factor == SEVERAL else f"{factor}={level}"


def cell_name(row: Row, factor: str) -> str:
    """Return ``vgg16, augment=true, labels_percent=10, seed 3, fold 2``."""
    parts = (row["model"], arm_name(factor, row["arm"]), row["stratum"], f"seed {row['seed']}", f"fold {row['fold']}")
    return ", ".join(part for part in parts if part)


def contrast_name(row: Row, factor: str) -> str:
    """Return ``augment=true against false, at labels_percent=10``."""
    at = f", at {row['stratum']}" if row["stratum"] else ""
    return f"{arm_name(factor, row['second'])} against {row['first']}{at}"


def seeds_to_decide(row: Row) -> str:
    """Return how many seeds would decide an undecided comparison, for a table; a dash where that is unknown."""
    if row["verdict"] != "undecided" or not _known(row["low"]) or not row["training_known"]:
        return UNKNOWN
    if _known(row["seeds_needed"]):
        return f"{max(math.ceil(float(row['seeds_needed'])), int(row['seeds']) + 1)} instead of {int(row['seeds'])}"
    return "none" if row["difference"] else UNKNOWN


def decider(row: Row) -> str:
    """Say what would decide an undecided comparison; "" where it is decided."""
    if row["verdict"] != "undecided":
        return ""
    if not row["training_known"]:
        return f"Undecided whatever p says: {_ONE_SEED}; run at least 3."
    if row["difference"] == 0:  # no number of seeds or photos would change that
        return ""
    if not _known(row["low"]):
        return (
            "There are too few groups of photos to judge other photos by: test photos from more groups would decide it."
        )
    if _known(row["seeds_needed"]):
        seeds = seeds_to_decide(row).replace(" instead", " seeds instead")
        return f"About {seeds} would decide it if the difference stays the same."
    return "No number of seeds would decide it: there are too few photos; more folds or photos would."


def statement(row: Row, factor: str) -> Finding:
    """Return the finding on test macro AP over all models, or on the only model."""
    scope = f"over {ALL_MODELS}" if row["model"] == ALL_MODELS else f"for {row['model']}"
    size = f"{counted(row['seeds'], 'seed')} x {counted(row['folds'], 'fold')}, {counted(row['groups'], 'group')} of"
    text = f"{contrast_name(row, factor)}: {row['verdict']} {scope}: test macro AP {difference(row)}, {size} photos."
    return Finding(text, row["verdict"], decider(row))


def model_statements(comparisons: pd.DataFrame) -> list[Finding]:
    """Return a finding for each model, to follow the verdict; none where the verdict is about single models already."""
    main = {(row["model"], *_contrast(row)) for row in main_rows(comparisons)}
    found: dict[str, list[Row]] = {}
    for row in macro_ap_rows(comparisons):
        if (row["model"], *_contrast(row)) not in main:
            found.setdefault(row["model"], []).append(row)
    return [
        _of_model(rows[0]) if len(rows) == 1 else Finding(f"{model}: {_tally(rows)}.", _common(rows))
        for model, rows in found.items()
    ]


def _of_model(row: Row) -> Finding:
    numbers = f"{difference(row)}, from {number(row['first_mean'])} to {number(row['second_mean'])}"
    numbers += f", p adjusted {p_value(row['p_adjusted'])}, {counted(row['pairs'], 'pair')}"
    seeds = seeds_to_decide(row)
    if not row["training_known"]:
        numbers += f"; undecided whatever p says: {_ONE_SEED}"
    elif seeds != UNKNOWN:
        numbers += "; no number of seeds would decide it" if seeds == "none" else f"; seeds to decide: {seeds}"
    return Finding(f"{row['model']}: {row['verdict']}: {numbers}.", row["verdict"])


def _tally(rows: Sequence[Row]) -> str:
    """Return ``helps in 1 and undecided in 3 of 4 comparisons``."""
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in get_args(ChangeVerdict)}
    found = joined(f"{verdict} in {count}" for verdict, count in counts.items() if count)
    return f"{found} of {counted(len(rows), 'comparison')}"


def _common(rows: Sequence[Row]) -> str:
    """Return the verdict that all rows share, or undecided."""
    verdicts_found = {row["verdict"] for row in rows}
    return str(verdicts_found.pop()) if len(verdicts_found) == 1 else "undecided"


def main_rows(comparisons: pd.DataFrame) -> list[Row]:
    """Return, for each contrast and stratum, its row on test macro AP: that of all models, or else of each model."""
    rows = macro_ap_rows(comparisons)
    pooled = {_contrast(row) for row in rows if row["model"] == ALL_MODELS}
    return [row for row in rows if row["model"] == ALL_MODELS or _contrast(row) not in pooled]


def _contrast(row: Row) -> tuple[str, str]:
    return row["stratum"], row["second"]


def verdicts(cells: pd.DataFrame, comparisons: pd.DataFrame, factor: str) -> list[Finding]:
    """Return the verdict: one finding, or, for several contrasts or strata, a summary followed by one for each."""
    rows = main_rows(comparisons)
    statements = [statement(row, factor) for row in rows]
    if not rows:
        finished = int((cells["status"] == FINISHED).sum())
        fact = f"{finished} of {counted(len(cells), 'cell')} finished, and no two of them differ in {factor} alone"
        return [Finding(f"Nothing can be said about {factor} yet: {fact}. Run the study again to fill the gaps.", "")]
    if len(rows) == 1:
        return statements
    seconds = joined(dict.fromkeys(str(row["second"]) for row in rows))
    scope = f"over {ALL_MODELS}, " if all(row["model"] == ALL_MODELS for row in rows) else ""
    text = f"{arm_name(factor, seconds)} against {rows[0]['first']}: {scope}{_tally(rows)} of test macro AP."
    return [Finding(text, _common(rows)), *statements]


def controls_warning(cells: pd.DataFrame) -> str:
    """Return the warning that precedes the verdict where most cells are not above the controls; "" otherwise."""
    finished = cells[cells["status"] == FINISHED]
    not_above = int((~finished["above_controls"].astype(bool)).sum())
    if 2 * not_above <= len(finished):
        return ""
    return (
        f"{not_above} of {counted(len(finished), 'cell')} are not reliably above the strongest control: the difference "
        "is between models that may not have looked at the litter."
    )


def tasks_warning(cells: pd.DataFrame, factor: str, arms: Sequence[str]) -> str:
    """Return the warning beside the verdict where the first arm's labels differ from another's; "" otherwise."""
    apart = [text for arm in arms[1:] if (text := _floors_apart(cells, factor, arms[0], arm))]
    if not apart:
        return ""
    return (
        "The arms have different labels: part of the difference is between tasks, not between trainings. A predictor "
        f"that gives every photo the same answer scores a macro AP of {'; '.join(apart)}."
    )


def _floors_apart(cells: pd.DataFrame, factor: str, first: str, second: str) -> str:
    """Return ``0.268 with mapping=taco and 0.274 with mapping=other (+0.006)``; "" where each fold has equal floors."""
    floors = cells.pivot_table("floor_macro_ap", ["stratum", "fold"], "arm")
    if not {first, second} <= set(floors):
        return ""
    both = floors[[first, second]].dropna()
    if ((both[second] - both[first]).abs() <= _SAME_FLOOR).all():
        return ""
    before, after = both.mean()
    names = [arm_name(factor, arm) for arm in (first, second)]
    return f"{number(before)} with {names[0]} and {number(after)} with {names[1]} ({signed(after - before)})"


def correction(comparisons: pd.DataFrame) -> str:
    """Say for how many comparisons the verdicts are corrected, and the consequence for the intervals."""
    made = sum(_known(row["p_value"]) for row in macro_ap_rows(comparisons))
    if not made:
        return ""
    return (
        f"Verdicts on macro AP are corrected for {counted(made, 'comparison')} (Holm): p adjusted below "
        f"{SIGNIFICANCE:g} helps or hurts, the rest is undecided. Intervals are not "
        "corrected: one may exclude zero while the verdict is still undecided."
    )


def cautions(cells: pd.DataFrame, comparisons: pd.DataFrame, factor: str) -> list[Caution]:
    """Check for missing and collapsed cells, cells that controls beat, and too few seeds or folds."""
    finished = cells[cells["status"] == FINISHED]
    found = [_unfinished(cells, factor)]
    if len(finished):
        found += [_collapsed(finished, comparisons, factor), _below_control(finished, factor)]
    rows = macro_ap_rows(comparisons)
    if unknown := sum(not row["training_known"] for row in rows):
        undecided = f"{unknown} of {counted(len(rows), 'comparison')} of test macro AP undecided whatever p says"
        found.append(Caution(f"{_ONE_SEED.capitalize()}: that leaves {undecided}. Run at least 3 seeds."))
    if any(row["folds"] < 2 for row in rows):
        found.append(
            Caution(
                "One fold: the intervals hold for other test photos and other seeds of this one set of training "
                "photos. None of them covers the effect of other training photos: train on several folds."
            )
        )
    return found


def _unfinished(cells: pd.DataFrame, factor: str) -> Caution:
    rest = cells[cells["status"] != FINISHED]
    if not len(rest):
        return Caution(f"All {counted(len(cells), 'planned cell')} finished.", grave=False)
    counts = joined(f"{count} {status}" for status, count in rest["status"].value_counts().items())
    text = f"{counted(len(cells), 'planned cell')}: {counts}; their pairs are left out of the comparisons."
    return Caution(text, _named(rest, factor))


def _collapsed(finished: pd.DataFrame, comparisons: pd.DataFrame, factor: str) -> Caution:
    flagged = finished["collapsed"].astype(bool)
    if not flagged.any():
        return Caution("No cell collapsed.", grave=False)
    text = f"{flagged.sum()} of {counted(len(finished), 'cell')} collapsed ({_per_arm(finished, flagged, factor)})."
    without = [_without_collapsed(row, factor) for row in main_rows(comparisons) if lost_pairs(row)]
    return Caution(" ".join([text, *without]), _named(finished[flagged], factor))


def lost_pairs(row: Row) -> int:
    """Return how many pairs of a comparison have a collapsed cell."""
    left = row["without_collapsed_pairs"]
    return int(row["pairs"] - left) if _known(left) else 0


def _without_collapsed(row: Row, factor: str) -> str:
    left = int(row["without_collapsed_pairs"])
    of_what = f"{contrast_name(row, factor)}, {row['model']}"
    if not left:
        return f"Without their pairs there is nothing left to compare ({of_what})."
    pairs = f"{left} of {counted(row['pairs'], 'pair')}"
    return f"Without their pairs the difference is {difference(row, 'without_collapsed_')} ({of_what}, {pairs})."


def _below_control(finished: pd.DataFrame, factor: str) -> Caution:
    flagged = finished["below_strongest_control"].astype(bool)
    unsure = int((~finished["above_controls"].astype(bool)).sum())
    total = counted(len(finished), "cell")
    doubt = (
        f"{unsure} of {total} are not reliably above it: they collapsed, or the interval of their gain over it reaches "
        "down to zero."
        if unsure
        else f"All {total} are reliably above it."
    )
    if not flagged.any():
        return Caution(f"No cell scores below its strongest control. {doubt}", grave=unsure > 0)
    text = f"{flagged.sum()} of {total} score below the strongest control ({_per_arm(finished, flagged, factor)})."
    return Caution(f"{text} {doubt}", _named(finished[flagged], factor))


def _per_arm(finished: pd.DataFrame, flagged: pd.Series[bool], factor: str) -> str:
    arms = flagged.groupby(finished["arm"], sort=False).agg(["sum", "size"])
    return ", ".join(f"{arm_name(factor, arm)}: {row['sum']} of {row['size']}" for arm, row in arms.iterrows())


def _named(cells: pd.DataFrame, factor: str) -> list[tuple[str, str]]:
    return [(cell_name(row, factor), row["run_id"] if isinstance(row["run_id"], str) else "") for row in rows_of(cells)]


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
