"""What a stranger finds: one version, links that lead somewhere, a README for an index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import adaptlr

ROOT = Path(__file__).parents[2]
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
        assert f"next release is {version.removesuffix('.dev0')}" in text("CHANGELOG.md")


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


def benchmark(row):
    """Cells of a row in the tables of the benchmark page, which are made from recorded runs."""
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text("docs/benchmarks.md"), re.M)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_figures_on_the_first_page_are_those_of_the_benchmark(page):
    shown = re.sub(r"\s+", " ", text(page))
    runs, points, *_ = benchmark("53%")
    gain, worst, best = (float(p) for p in re.findall(r"[+-][\d.]+", points))
    assert f"{gain:.1f} points of test accuracy above" in shown
    assert f"{runs} runs on CIFAR-10" in shown
    assert re.search(
        rf"{worst:+.1f} in the worst(,| and) {best:+.1f} in the best".replace("+", r"\+"), shown
    )
    _, regret = benchmark("regret: mean / worst")
    mean, worst = map(float, regret.split(" / "))
    assert f"ends {mean:.1f} points below" in shown
    assert f"{worst:.1f} points" in shown
    _, lost = benchmark("steps thrown away: mean / most")
    mean, most = (float(p) for p in re.findall(r"[\d.]+", lost))
    assert f"throws away {mean:.0f} %" in shown
    assert f"{most:.0f} % in the shortest" in shown
