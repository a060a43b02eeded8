"""Prints the tables of the small jobs, losers first; `tables.py` writes them into the page.

python examples/benchmark/tables_small.py
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lines import read_lines
from page import markdown
from run_small import FACTORS, FINE, LINES
from small import JOBS, Job

Line = dict[str, Any]
Runs = dict[int, Line]  # by seed
OURS = "AutoLR"
# Seven runs each; the one that ends best on validation stands for them.
BEST = {"decay": "best decay", "ScheduleFreeAdamW at": "ScheduleFreeAdamW, best of seven"}
# Who needs no rate, or has had seven tried.
RACE = [
    "constant",
    "ScheduleFreeAdamW",
    "ScheduleFreeAdamW, averages",
    "ScheduleFreeAdamW, best of seven",
    "ScheduleFreeAdamW, AutoLR",
    "Prodigy",
    "D-Adaptation",
    "DoG",
    "Mechanic",
    "MoMo",
    "NadamW, AlgoPerf",
    "best decay",
    OURS,
]
FAR = {"points": 3.0, "loss": 15.0}  # further below the default rate is far


def by_job(lines: Sequence[Line]) -> dict[str, dict[str, Runs]]:
    """Job → method → seed → run; of seven rates, the run that ends best on validation."""
    table: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(dict))
    tried: dict[tuple[str, str, int], list[Line]] = defaultdict(list)
    for line in lines:
        if "job" not in line or line["method"] == "constant at":
            continue
        name, method, seed = line["job"], line["method"], line["seed"]
        if method in BEST:
            tried[name, method, seed].append(line)
        else:
            table[name][method][seed] = line
    kinds = {job.name: job for job in JOBS}
    for (name, method, seed), runs in tried.items():
        if name in kinds and len(runs) == len(FACTORS):
            table[name][BEST[method]][seed] = min(runs, key=_worse_on_validation(kinds[name]))
    return table


def _worse_on_validation(job: Job) -> Callable[[Line], float]:
    lower = "loss" in job.monitor

    def key(line: Line) -> float:
        value = float(line["validation"])
        return math.inf if math.isnan(value) else value if lower else -value

    return key


def ahead(job: Job, line: Line, other: Line) -> float:
    """By how much a run is better than another: points, or per cent of the other's loss."""
    if job.score == "loss":
        return 100.0 * (other["test"] - line["test"]) / other["test"]
    return 100.0 * (line["test"] - other["test"])


def unit(job: Job) -> str:
    """What `ahead` counts in."""
    return "loss" if job.score == "loss" else "points"


def pairs(job: Job, methods: dict[str, Runs], ours: str, other: str) -> list[float]:
    """`ahead` for each seed that both have."""
    mine, its = methods.get(ours, {}), methods.get(other, {})
    return [ahead(job, mine[seed], its[seed]) for seed in sorted(mine.keys() & its.keys())]


def is_lost(differences: Sequence[float]) -> bool:
    """Whether the mean is below zero by more than two standard errors."""
    if len(differences) < 2:
        return False
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences) < -2.0 * error


def lottery(runs: Runs) -> float | None:
    """Largest ÷ smallest rate held."""
    held = [line["held"] for line in runs.values() if line.get("held")]
    return max(held) / min(held) if len(held) > 1 else None


def figures(jobs: Sequence[Job], table: dict[str, dict[str, Runs]], method: str) -> list[str]:
    """A row: the figures of a method over jobs."""
    against = [(job, pairs(job, table[job.name], method, "constant")) for job in jobs]
    runs = [(job, x) for job, found in against for x in found]
    far = sum(x < -FAR[unit(job)] for job, x in runs)
    lost = sum(is_lost(found) for _, found in against)
    kept = [job for job in jobs if job.score != "loss"]
    regret = [-x for job in kept for x in pairs(job, table[job.name], method, "best decay")]
    losses = [
        math.log1p(-x / 100.0)
        for job in jobs
        if job.score == "loss"
        for x in pairs(job, table[job.name], method, "best decay")
        if x > -1e4
    ]
    spreads = [x for job in jobs if (x := lottery(table[job.name].get(method, {})))]
    return [
        method,
        str(sum(bool(found) for _, found in against)),
        str(len(runs)),
        f"{far} ({far / len(runs):.0%})" if runs else "–",
        str(lost),
        f"{statistics.mean(regret):+.2f}" if regret else "–",
        f"{math.exp(statistics.mean(losses)):.3f}" if losses else "–",
        f"{statistics.median(spreads):.1f}" if spreads else "–",
    ]


def figure_table(jobs: Sequence[Job], table: dict[str, dict[str, Runs]]) -> str:
    """The figures, a row for each method that ran on a third of the jobs that have any."""
    free = "ScheduleFreeAdamW"
    methods = ["constant", "ReduceLROnPlateau", free, f"{free}, averages", f"{free}, AutoLR",
               "OneCycleLR", "best decay", "AutoLR 0.1", OURS]  # fmt: skip
    rows = [figures(jobs, table, method) for method in methods]
    head = ["method", "jobs", "runs", "far below the default", "jobs lost", "regret, points",
            "loss ÷ best decay's", "lottery, median"]  # fmt: skip
    known = sum(bool(table[job.name].get("constant")) for job in jobs)
    return markdown(head, [row for row in rows if known and 3 * int(row[1]) >= known])


def regrets(jobs: Sequence[Job], table: dict[str, dict[str, Runs]], method: str) -> list[str]:
    """Of the accuracies, in points, and of the losses, as a ratio, to the best of seven decays."""
    points: list[float] = []
    ratios: list[float] = []
    for job in jobs:
        for x in pairs(job, table[job.name], method, "best decay"):
            if unit(job) == "points":
                points.append(-x)
            elif x > -1e4:
                ratios.append(math.log1p(-x / 100.0))
    return [
        f"{statistics.mean(points):+.2f}" if points else "–",
        f"{math.exp(statistics.mean(ratios)):.3f}" if ratios else "–",
    ]


def search_table(table: dict[str, dict[str, Runs]]) -> str:
    """AutoLR against the best of seven decays job by job: what a mean over jobs does not show."""
    rows = []
    for half, kept_out in (("tuned on", False), ("kept out", True)):
        jobs = [job for job in JOBS if job.kept_out is kept_out]
        found = {job: pairs(job, table[job.name], OURS, "best decay") for job in jobs}
        found = {job: differences for job, differences in found.items() if differences}
        leads = [round(statistics.mean(differences), 1) for differences in found.values()]
        behind = {j: [-x for x in found[j]] for j in found if unit(j) == "points"}
        if not behind:
            continue
        every = [x for differences in behind.values() for x in differences]
        by_job = [statistics.mean(differences) for differences in behind.values()]
        most = min(behind, key=lambda job: statistics.mean(behind[job]))
        rest = [x for job, differences in behind.items() if job is not most for x in differences]
        picked = [line for job in found for line in table[job.name]["best decay"].values()]
        highest = sum(line["factor"] == max(FACTORS) for line in picked)
        rows.append(
            [
                half,
                f"{sum(x > 0 for x in leads)} / {leads.count(0)} / {sum(x < 0 for x in leads)}",
                str(len(every)),
                f"{statistics.mean(every):+.2f}",
                f"{statistics.median(by_job):+.2f}",
                f"{statistics.mean(rest):+.2f} ({most.name})" if rest else "–",
                f"{highest} of {len(picked)}",
            ]
        )
    head = ["jobs", "AutoLR ahead / level / behind", "runs in points", "regret: mean",
            "median of the jobs", "without the job of the largest gain",
            "best decay is that of the highest rate"]  # fmt: skip
    return markdown(head, rows)


def race_table(table: dict[str, dict[str, Runs]], seeds: Sequence[int] = (0, 1)) -> str:
    """Everything that needs no rate, on seeds that all have, the best last."""
    table = {
        name: {
            method: {s: runs[s] for s in seeds if s in runs} for method, runs in methods.items()
        }
        for name, methods in table.items()
    }
    rows = []
    for method in RACE:
        against = [(job, pairs(job, table.get(job.name, {}), method, "constant")) for job in JOBS]
        ran = [job for job, found in against if found]
        runs = [(job, x) for job, found in against for x in found]
        if not runs:
            continue
        far = sum(x < -FAR[unit(job)] for job, x in runs)
        tuned, kept = ([job for job in ran if job.kept_out is half] for half in (False, True))
        ours = [y for job in ran for y in pairs(job, table[job.name], OURS, method)
                if unit(job) == "points"]  # fmt: skip
        row = [method, str(len(ran)), str(len(runs)), *regrets(tuned, table, method),
               *regrets(kept, table, method), str(far),
               str(sum(is_lost(found) for _, found in against)),
               f"{statistics.mean(ours):+.2f}" if ours and method != OURS else "–"]  # fmt: skip
        rows.append((statistics.mean(ours) if ours else 0.0, row))
    head = ["method", "jobs", "runs", "regret, tuned on", "loss, tuned on", "regret, kept out",
            "loss, kept out", "far below the default", "jobs lost",
            "AutoLR ahead, points"]  # fmt: skip
    return markdown(head, [row for _, row in sorted(rows, key=lambda pair: -pair[0])])


def to_the_best(table: dict[str, dict[str, Runs]], seeds: Sequence[int] = (0, 1)) -> str:
    """By how much the best of everything else, as it turns out on the test split, beats AutoLR."""
    behind, most = [], 0.0
    for job in JOBS:
        others = [m for m in RACE if m != OURS]
        for seed in seeds:
            runs = table.get(job.name, {})
            ours = runs.get(OURS, {}).get(seed)
            its = [runs[m][seed] for m in others if seed in runs.get(m, {})]
            if unit(job) == "points" and ours is not None and its:
                behind.append(max(-ahead(job, ours, line) for line in its))
                most = max(most, behind[-1])
    if not behind:
        return ""
    mean = f"{statistics.mean(behind):.2f} points in the mean of {len(behind)} runs"
    return (
        f"{OURS} is behind the best of everything else in the table by {mean}, at most {most:.1f}."
    )


def spread(job: Job, runs: Runs) -> str:
    """Mean (lowest to highest) of a job's score."""
    scale = 1.0 if job.score == "loss" else 100.0
    found = [scale * line["test"] for line in runs.values()]
    if not found:
        return "–"
    digits = ".4g" if job.score == "loss" else ".1f"
    return f"{statistics.mean(found):{digits}} ({min(found):{digits}} to {max(found):{digits}})"


def job_table(table: dict[str, dict[str, Runs]]) -> str:
    """Every job with its spread, those that lose to the default rate first."""
    rows = []
    for job in JOBS:
        methods = table[job.name]
        differences = pairs(job, methods, OURS, "constant")
        if not differences:
            continue
        mean = statistics.mean(differences)
        regret = pairs(job, methods, OURS, "best decay")
        held = [line["held"] for line in methods[OURS].values() if "held" in line]
        percent = " %" if job.score == "loss" else ""
        row = [
            f"{job.name}{' *' if job.kept_out else ''}",
            job.score,
            str(len(differences)),
            spread(job, methods["constant"]),
            spread(job, methods["best decay"]),
            spread(job, methods[OURS]),
            f"{mean:+.1f}{percent}",
            f"{statistics.mean(regret):+.1f}{percent}" if regret else "–",
            f"{min(held):.2g} to {max(held):.2g}" if held else "–",
        ]
        rows.append((mean, row))
    head = ["job", "score", "seeds", "default rate", "best of seven decays", OURS,
            "against the default", "against the decay", "rates held"]  # fmt: skip
    return markdown(head, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def rate_table(lines: Sequence[Line], table: dict[str, dict[str, Runs]]) -> str:
    """The rates that AutoLR holds against the constant rate that is best on validation."""
    rows = []
    for job in JOBS:
        found: dict[float, list[Line]] = defaultdict(list)
        for line in lines:
            if line.get("job") == job.name and line["method"] == "constant at":
                found[line["factor"]].append(line)
        held = [line["held"] for line in table[job.name].get(OURS, {}).values() if "held" in line]
        if len(found) < len(FINE) or not held:
            continue
        key = _worse_on_validation(job)
        best = min(found, key=lambda factor: statistics.mean(map(key, found[factor])))
        ratios = sorted(rate / (best * job.centre) for rate in held)
        scores = [spread(job, dict(enumerate(found[best]))), spread(job, table[job.name][OURS])]
        row = [job.name, f"{best * job.centre:.2g}", scores[0]]
        row += [f"{min(held):.2g} to {max(held):.2g}", scores[1]]
        middle = f"{statistics.median(ratios):.2g} ({ratios[0]:.2g} to {ratios[-1]:.2g})"
        rows.append([*row, middle])
    head = ["job", "best constant rate", "with it", "rates held", "with AutoLR", "held ÷ best"]
    return markdown(head, rows)


def sections(lines: Sequence[Line]) -> dict[str, str]:
    """Marker in the page → what stands there."""
    table = by_job(lines)
    parts = {
        "small-tuned": [job for job in JOBS if not job.kept_out],
        "small-kept-out": [job for job in JOBS if job.kept_out],
    }
    texts = {name: figure_table(jobs, table) for name, jobs in parts.items()}
    made_by = sorted({line["made_by"] for line in lines if "made_by" in line})
    return {
        **texts,
        "small-search": search_table(table),
        "small-race": "\n\n".join(filter(None, (race_table(table), to_the_best(table)))),
        "small-jobs": job_table(table),
        "small-rates": rate_table(lines, table),
        "small-made-by": "\n".join(f"* {text}" for text in made_by),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=Path, default=LINES)
    options = parser.parse_args()
    texts = sections(read_lines(options.lines))
    print("\n\n".join(f"{name}\n\n{text}" for name, text in texts.items()))


if __name__ == "__main__":
    main()
