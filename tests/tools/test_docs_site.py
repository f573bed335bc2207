"""The hooks of the documentation site: the API reference covers every package, links outside docs/ are absolute."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tests.project.running import ROOT

pytest.importorskip("mkdocs")
from tools import docs_site

REPOSITORY = "https://example.org/repository"


def rewritten(markdown: str, page: str = "guides/one.md") -> str:
    config = SimpleNamespace(extra={"repository": REPOSITORY})
    return docs_site.on_page_markdown(markdown, SimpleNamespace(file=SimpleNamespace(src_uri=page)), config, None)


def test_the_reference_has_a_page_per_package() -> None:
    config = SimpleNamespace(nav=[])
    docs_site.on_config(config)
    (section,) = config.nav
    named = {name for entry in section["API reference"] for name in entry}
    folders = {path.name for path in (ROOT / "src" / "wastelens").iterdir() if (path / "__init__.py").is_file()}
    assert named == folders | {"cli", "errors"}


def test_links_outside_docs_lead_to_the_repository() -> None:
    assert rewritten("[a](../../data/README.md#layouts)") == f"[a]({REPOSITORY}/blob/main/data/README.md#layouts)"
    assert rewritten("[a](../conf/train.yaml)", "models.md") == f"[a]({REPOSITORY}/blob/main/conf/train.yaml)"


@pytest.mark.parametrize("link", ["[a](../studies.md)", "[a](../studies.md#the-grid)", "[a](https://example.org/x)"])
def test_links_inside_docs_stay(link: str) -> None:
    assert rewritten(link) == link
