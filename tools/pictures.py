"""Take README's pictures and its table from the newest finished `main` run, such as that of `make demo`.

Both pictures are of the model that the run chose. The card of explanations is that of the right decision with the most
evidence on the litter; it is photographed by headless Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from PIL import Image, ImageChops

from wastelens.experiment.finished_runs import without_dataset
from wastelens.explain.page.gallery import excerpt

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- the table of `make pictures` -->", "<!-- end of the table -->"
WIDTH_PX = 1000


def main() -> None:
    """Write docs/average_precision.png, docs/explanations.jpg and the table in README.md."""
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="tags.step = 'main' and attributes.status = 'FINISHED'",
        max_results=1,
        output_format="list",
    )
    if not runs:
        sys.exit("There is no finished main run in the store. Run `make demo` first.")
    job = runs[0]
    best = mlflow.get_run(job.data.tags["best_run"])
    folder = Path(mlflow.artifacts.download_artifacts(best.info.artifact_uri))
    shutil.copy(folder / "figures" / "average_precision.png", ROOT / "docs" / "average_precision.png")
    _card(folder / "explanations", ROOT / "docs" / "explanations.jpg")
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"{job.info.artifact_uri}/comparison.csv"))
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{_table(table, best.info.run_id)}\n\n{END}{after}", encoding="utf-8")
    print(f"README's pictures and table are those of run {job.info.run_id}, model {best.info.run_name}.")


def _table(compared: pd.DataFrame, best: str) -> str:
    lines = ["| model | test macro AP [95 %] | floor | strongest control | verdict |", "|---|---|---|---|---|"]
    for row in compared.itertuples():
        name = without_dataset(row.run)
        name = f"**{name}**" if row.run_id == best else name
        lines.append(
            f"| {name} | {row.test_macro_ap:.3f} [{row.test_macro_ap_low:.3f}, {row.test_macro_ap_high:.3f}] "
            f"| {row.floor_macro_ap:.3f} | {row.strongest_control_macro_ap:.3f} ({row.strongest_control}) "
            f"| {row.verdict} |"
        )
    return "\n".join(lines)


def _card(explanations: Path, target: Path) -> None:
    scores = pd.read_csv(explanations / "scores.csv")
    seen = scores[(scores["localised"] == 1) & (scores["outcome"] == "right") & (scores["method"] != "centre")]
    name, material = seen.groupby(["file_name", "material"])["energy"].mean().idxmax()
    place = 1 + list(dict.fromkeys(scores.loc[scores["file_name"] == name, "material"])).index(material)
    alone = f"<style>.card:not(:nth-of-type({place})) {{ display: none }}</style>"
    with tempfile.TemporaryDirectory() as temporary:
        page, picture = Path(temporary) / "card.html", Path(temporary) / "card.png"
        text = excerpt((explanations / "index.html").read_text(encoding="utf-8"), [name])
        page.write_text(text.replace("</body>", f"{alone}</body>"), encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH_PX},2400"]
        subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
        with Image.open(picture) as taken:
            shot = taken.convert("RGB")
        empty = Image.new("RGB", shot.size, shot.getpixel((shot.width - 1, shot.height - 1)))
        box = ImageChops.difference(shot, empty).getbbox()
        shot.crop(box).save(target, quality=88)


if __name__ == "__main__":
    main()
