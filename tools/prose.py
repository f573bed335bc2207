"""Find words that this project does not use: ``python tools/prose.py [PATH ...]``; exit status 1 where one is found.

They are literal translations, or need a second reading. The list grows when a reviewer stumbles.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".jinja", ".js", ".css", ".html", ".ipynb", ".cff"}
EXEMPT = {"prose.py", "test_prose.py"}  # they spell the words
BANNED = {
    r"\banew\b": "again",
    r"\b(can|cannot|could|may|might|to|not) be had\b": "be obtained, is available",
    r"\bmend(s|ed|ing|able)?\b": "fix, repair",
    r"\bso many\b": "this many, a number of, N",
    r"\bwhom\b": "who",
    r"\bfor ever\b": "forever, indefinitely",
    r"\b(has|have|had|what) (it )?(has )?come to\b": "result, outcome",
    r"\bof one's own\b": "your own",
    r"\bas they come\b": "unchanged",
    r"\bhangs? on\b": "depends on",
    r"\b(?:are|is) dear\b": "is expensive",
    r"\bwithout a look at\b": "ignoring",
    r"\bhas become of\b": "what happened to",
    r"\bdealt to\b": "assigned to",
    r'"""What\b': "Return the …, or what the class is",
    r"\b(rows?|files?|lines?|columns?|numbers?|colours?|copies|seconds|minutes|photos|images|maps|steps|bytes|MB|GB|ms|s"
    r"|probability|decision|entry|figure|vector|threshold) an? "
    r"(photo|material|method|cell|run|epoch|row|fold|label|image|layer|trial|step|batch|model|class|object|cluster|pair"
    r"|group|second|minute|call)\b": "per",
    r"\bonce an? (photo|row|epoch|batch|step|run)\b(?!')": "once per",
    r"\bof one material a photo\b": "of one material per photo",
    r"\bruns? to go on with\b": "to resume",
    r"\bmakes? no sense\b|\bmade no sense\b": "malformed, invalid",
    r"\bsays? the same of\b": "gives the same answer for",
    r"\bthe commonest\b": "the most common",
}


def problems(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the banned words and their replacement for each place in a text."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, better in BANNED.items():
            if match := re.search(pattern, line, re.IGNORECASE):
                yield number, match[0], better


def main(arguments: list[str]) -> int:
    """Print each place with banned words and what to write instead; return the exit status."""
    listed = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    found = False
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix not in SUFFIXES or path.name in EXEMPT or not path.is_file():
            continue
        for number, words, better in problems(path.read_text(encoding="utf-8")):
            found = True
            print(f"{name}:{number}: '{words}': write {better}")
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
