"""What a stranger finds: one version, links that lead somewhere, a README for an index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import adaptlr

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md"]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_one_version_story():
    released, *_ = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", text("CHANGELOG.md"), re.M)
    cited = re.search(r"^version: (\S+)\ndate-released: \"(\S+)\"$", text("CITATION.cff"), re.M)
    assert cited.groups() == released
    version = adaptlr.__version__
    assert version == released[0] or version.endswith(".dev0")
    assert tuple(map(int, re.findall(r"\d+", version)[:3])) >= tuple(
        map(int, released[0].split("."))
    )
    assert f"last release is {released[0]}" in re.sub(r"\s+", " ", text("README.md"))
    if version != released[0]:
        assert f"on the way to {version.removesuffix('.dev0')}" in text("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files(page):
    links = LINK.findall(text(page))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
def test_an_index_gets_a_readme_without_relative_links():
    import tomllib

    hooks = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["metadata"]["hooks"]
    shown = text("README.md")
    for rule in hooks["fancy-pypi-readme"]["substitutions"]:
        shown = re.sub(rule["pattern"], rule["replacement"], shown)
    assert LINK.findall(text("README.md"))
    assert LINK.findall(shown) == []
    assert "](https://example.org/adaptlr/raw/main/docs/images/digits.png)" in shown
