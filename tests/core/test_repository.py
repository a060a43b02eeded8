"""What a stranger finds: one version, links that lead somewhere, a README for an index."""

from __future__ import annotations

import re
import statistics
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


def table(name):
    """Rows of a table of the benchmark page, which is made from recorded runs."""
    page = text("docs/benchmarks.md")
    part = page.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


PEERS = ("Prodigy", "D-Adaptation", "DoG", "Mechanic", "MoMo", "NadamW, AlgoPerf")


def higher(unit, regret):
    """A regret as what the best of the search is against AutoLR."""
    return f"{abs(float(regret)):.1f}{unit} {'lower' if regret.startswith('-') else 'higher'}"


def small_jobs():
    """The figures of the first pages: how AutoLR ends on the small jobs."""
    jobs = table("small-jobs")
    scored = [row for row in jobs if row[1] in ("accuracy", "auc")]
    gains, regrets = ([float(row[i]) for row in scored] for i in (6, 7))
    ours = {kind: table(f"small-{kind}")[-1] for kind in ("tuned", "kept-out")}
    runs = sum(int(row[2]) for row in ours.values())
    below = sum(int(row[3].split()[0]) for row in ours.values())
    ahead, _, behind = map(
        sum, zip(*(map(int, row[1].split(" / ")) for row in table("small-search")), strict=True)
    )
    return {
        f"ends higher than `AutoLR`, on {ahead} lower",
        f"On {behind} of the",
        f"We ran {len(jobs)} small jobs",
        f"On {sum(not row[6].startswith('-') for row in jobs)} of them",
        f"median job gains {statistics.median(gains):.1f} points",
        f"worst loses {-min(gains):.1f}, the best gains {max(gains):.1f}",
        f"ends {higher(' points', ours['tuned'][5])} on the jobs that we tuned `AutoLR` on",
        f"{higher('', ours['kept-out'][5])} on those that we kept out",
        f"the worst job ends {-min(regrets):.1f} points below its best decay",
        f"{below} of {runs} runs ended more than 3 points below the default rate",
    }


def test_longer_runs_on_the_first_page_are_those_of_the_benchmark():
    ours = [next(r for r in table(name) if r[0] == "AutoLR") for name in ("figures", "held-out")]
    runs = [int(row[1]) for row in ours]
    regrets = [float(row[4].split(" / ")[0]) for row in ours]
    mean = sum(n * x for n, x in zip(runs, regrets, strict=True)) / sum(runs)
    shown = re.sub(r"\s+", " ", text("README.md"))
    assert (
        f"In {sum(runs)} runs of up to 4700 steps that best ends {mean:.1f} points higher" in shown
    )
    peers = [float(row[9]) for row in table("small-race") if row[0] in PEERS]
    assert f"Of six methods that choose their own rate, the best ends {min(peers):.1f}" in shown
    assert len(peers) == 6
    (free,) = (row[9] for row in table("small-race") if row[0].endswith("best of seven"))
    assert f"rates of `ScheduleFreeAdamW` ends {-float(free):.1f} points higher" in shown
    ends = {(row[0], row[1]): float(row[3]) for row in table("cifar-bfloat16")}
    gains = [ends[n, "AutoLR"] - ends[n, "constant"] for n in ("resnet20, adam", "resnet20, sgd")]
    assert "ends {:.1f} points higher with Adam and {:.1f} with SGD".format(*gains) in shown
    cosine = -float(table("cifar-bfloat16-marks")[0][2])
    assert f"best of three cosine decays ends {cosine:.1f} points higher with Adam" in shown
    cosine = float(table("cifar-bfloat16-marks")[0][3])
    assert f"and {cosine:.1f} lower with SGD" in shown
    (regret,) = (row[4] for row in table("pictures") if row[0] == "AutoLR")
    assert f"ended {float(regret.split(' / ')[1]):.1f} points below the best decay" in shown
    undone = [float(row[5].rstrip(" %")) for row in table("auto")]
    assert f"{max(undone):g} % at most in runs of 400 steps" in shown


def test_the_lead_over_each_peer_in_the_migration_is_that_of_the_race():
    ahead = {row[0]: abs(float(row[9])) for row in table("small-race") if row[9] != "–"}
    page = text("docs/migration.md").split("## Optimizers that need no rate")[1].split("\n## ")[0]
    shown = sorted(float(found) for found in re.findall(r"(\d+\.\d) ahead", page))
    assert shown == sorted(round(ahead[name], 1) for name in (*PEERS, "ScheduleFreeAdamW, AutoLR"))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_figures_on_the_first_page_are_those_of_the_benchmark(page):
    shown = re.sub(r"\s+", " ", text(page))
    assert {figure for figure in small_jobs() if figure not in shown} == set()


def test_marks_on_small_jobs_are_those_of_the_tables():
    tuned, kept = (table(f"small-{kind}")[-1] for kind in ("tuned", "kept-out"))
    page = text("docs/benchmarks.md")
    far = " / ".join(f"{row[3].split()[0]} of {row[2]}" for row in (tuned, kept))
    ratios = {row[0]: float(row[5].split()[0]) for row in table("small-rates")}
    for name, ratio in ratios.items():
        shown = name.split(",")[1].split()[0]
        assert f"{shown} {max(ratio, 1 / ratio):.0f}" in page.split("within a factor of 4")[1]
    for figures in (far, *(f"{tuned[i].lstrip('+')} / {kept[i].lstrip('+')}" for i in (4, 5, 7))):
        assert f"| {figures} |" in page
    longer = [next(r for r in table(name) if r[0] == "AutoLR") for name in ("figures", "held-out")]
    runs = [int(row[1]) for row in longer]
    means, worsts = zip(*(map(float, row[4].split(" / ")) for row in longer), strict=True)
    mean = sum(n * x for n, x in zip(runs, means, strict=True)) / sum(runs)
    assert f"| {mean:.2f} / {max(worsts):.2f} |" in page
