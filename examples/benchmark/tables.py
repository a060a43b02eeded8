"""Makes the tables of docs/benchmarks.md from the result lines.

python examples/benchmark/tables.py           # writes docs/benchmarks.md
python examples/benchmark/tables.py --check   # says whether it is up to date
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tables_small
from lines import read_lines
from methods import FACTORS, METHODS, ORACLE_FACTORS, PEERS
from page import PAGE, fill, markdown
from run import LINES

Line = dict[str, Any]
Cell = tuple[str, str, str, int]  # suite, task, optimizer, seed
ORACLE = "oracle"
BEST_FREE = "ScheduleFreeAdamW, best of seven"
OURS, BEFORE = "AutoLR", "AutoLR 0.1"  # the version before has lines of its own
SHARES = ("", ", half the epochs", ", a third of the epochs")
LOGGED = ("cifar-small", "cnn", "adam", 0)  # the run whose decisions are shown
# What is compiled in place of the task's optimizer, and once for all of them.
REPLACING = ("ScheduleFreeAdamW", "ScheduleFreeAdamW, AutoLR", BEST_FREE, *PEERS)
CPU_SUITES = ("digits", "cifar-small", "vit-small")
# Suites that are in no figure over all, and what is shown there beside the methods of the others.
APART = {"held-out": (), "pictures": REPLACING}
RACED = (*CPU_SUITES, "held-out")
# Each run takes long: a row for each method and rate.
NETWORKS = ("cifar", "cifar-bfloat16", "pictures-large")


def cell_of(line: Line) -> Cell:
    """Runs in the same cell saw the same batches from the same weights."""
    return line["suite"], line["task"], line["optimizer"], line["seed"]


def validation(line: Line) -> list[float]:
    """Validation accuracy at the end of each epoch."""
    return [epoch["val_accuracy"] for epoch in line["epochs"]]


def by_cell(lines: Iterable[Line]) -> dict[Cell, dict[str, list[Line]]]:
    """Cell → method → runs; the oracle is the decay that ends best on the validation split."""
    cells: dict[Cell, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        cells[cell_of(line)][line["method"]].append(line)
    for methods in cells.values():
        decays = methods.pop("decay", [])
        if len(decays) == len(ORACLE_FACTORS):
            methods[ORACLE] = [max(decays, key=lambda line: validation(line)[-1])]
        tried = methods.pop("ScheduleFreeAdamW at", [])
        if len(tried) == len(FACTORS):
            methods[BEST_FREE] = [max(tried, key=lambda line: validation(line)[-1])]
    return {cell: dict(methods) for cell, methods in cells.items() if "constant" in methods}


# --- figures of one run against the others of its cell ------------------------------------------


def steps_ratio(line: Line, constant: Line) -> float | None:
    """Steps to the constant rate's best validation accuracy, as a share of its own; or None."""
    target = max(validation(constant))

    def reached(run: Line) -> float | None:
        return next((e["step"] for e in run["epochs"] if e["val_accuracy"] >= target), None)

    mine, its = reached(line), reached(constant)
    return None if mine is None or its is None else mine / its


def error_ratio(line: Line, constant: Line) -> float:
    """Test error ÷ that of the constant rate; half of one in 1000 images where there is none."""
    mine, its = (max(1.0 - run["test_accuracy"], 0.0005) for run in (line, constant))
    return mine / its


def points(line: Line, other: Line) -> float:
    """Test accuracy − that of another run, in percentage points."""
    return 100.0 * (line["test_accuracy"] - other["test_accuracy"])


def thrown_away(line: Line) -> float:
    """Share of a run's steps that the search undid: of two segments that were compared, one."""
    begun, lost = 0, 0
    for step, _, rule, reason in line["decisions"]:
        if rule == "back" or (rule == "lower" and "tried from there" in reason):
            lost += step - begun
        elif rule == "undo":  # the raise before as well
            lost += 2 * (step - begun)
        elif rule == "settle":  # the ramp
            lost += step - begun
        elif rule == "lower" and "from the start" in reason:
            lost = step
        begun = step
    return lost / line["steps"]


def geometric(values: Sequence[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


# --- tables --------------------------------------------------------------------------------------


def accuracy_table(cells: dict[Cell, dict[str, list[Line]]], methods: Sequence[str]) -> str:
    """Mean test accuracy, a row for each task and optimizer."""
    groups: dict[tuple[str, ...], list[dict[str, list[Line]]]] = defaultdict(list)
    for (suite, task, optimizer, _), runs in sorted(cells.items()):
        groups[suite, task, optimizer].append(runs)
    rows = []
    for (suite, task, optimizer), group in groups.items():
        row = [f"{suite} {task}, {optimizer}", str(len(group))]
        for method in methods:
            found = [100.0 * runs[method][0]["test_accuracy"] for runs in group if method in runs]
            short = "" if len(found) == len(group) else f" ({len(found)})"
            row.append(f"{mean(found):.1f}{short}" if found else "–")
        rows.append(row)
    return markdown(["suite, task, optimizer", "seeds", *methods], rows)


def figure_table(cells: dict[Cell, dict[str, list[Line]]], methods: Sequence[str]) -> str:
    """The figures over all cells, a row for each method."""
    rows = []
    for method in methods:
        pairs = [(runs[method][0], runs) for runs in cells.values() if method in runs]
        if not pairs:
            continue
        ratios = [steps_ratio(line, runs["constant"][0]) for line, runs in pairs]
        errors = [error_ratio(line, runs["constant"][0]) for line, runs in pairs]
        regret = [-points(line, runs[ORACLE][0]) for line, runs in pairs if ORACLE in runs]
        worse = sum(points(line, runs["constant"][0]) < -0.5 for line, runs in pairs)
        rows.append(
            [
                method,
                str(len(pairs)),
                to_target(ratios),
                f"{geometric(errors):.3f}",
                f"{mean(regret):.2f} / {max(regret) + 0.0:.2f}" if regret else "–",
                str(worse),
            ]
        )
    head = ["method", "runs", "steps to target", "error ratio", "regret: mean / worst", "worse"]
    return markdown(head, rows)


def auto_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """What concerns AutoLR alone: its start rates, its steps thrown away, the rates it found."""
    rows = []
    for (suite, task, optimizer, seed), runs in sorted(cells.items()):
        autos = runs.get(OURS, [])
        if not autos:
            continue
        tested = [100.0 * line["test_accuracy"] for line in autos]
        line = autos[0]
        rows.append(
            [
                f"{suite} {task}, {optimizer}",
                str(seed),
                str(len(autos)),
                f"{max(tested) - min(tested):.2f}",
                held(line),
                f"{100.0 * thrown_away(line):.1f} %",
                f"{line['steps'] / line['epoch_steps']:.0f} of {line['planned_epochs']}",
            ]
        )
    head = ["suite, task, optimizer", "seed", "start rates", "spread, points", "rate held",
            "thrown away", "epochs"]  # fmt: skip
    return markdown(head, rows)


def ablation_table(cells: dict[Cell, dict[str, list[Line]]], methods: Sequence[str]) -> str:
    """Each variant of AutoLR against AutoLR itself, over the cells in which the variant ran."""
    rows = []
    for method in methods:
        whole = BEFORE if method.startswith("0.1 ") else OURS
        pairs = [
            (runs[method][0], runs[whole][0], runs["constant"][0])
            for runs in cells.values()
            if method in runs and whole in runs
        ]
        if not pairs:
            continue
        change = [points(line, auto) for line, auto, _ in pairs]
        steps = [(steps_ratio(x, constant), steps_ratio(a, constant)) for x, a, constant in pairs]
        both = [(x, a) for x, a in steps if x is not None and a is not None]
        faster = geometric([x / a for x, a in both]) if both else math.nan
        never = sum(x is None for x, _ in steps)
        rows.append(
            [
                method,
                str(len(pairs)),
                f"{mean(change):+.2f} ({min(change):+.2f} to {max(change):+.2f})",
                f"× {faster:.2f}" + (f" ({never} never)" if never else ""),
            ]
        )
    head = ["variant", "runs", "test accuracy, points (range)", "steps to target"]
    return markdown(head, rows)


def network_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """One row for each method, and for each of its rates where it has some; means over seeds."""
    groups: dict[tuple[str, str], list[tuple[Line, Line]]] = defaultdict(list)
    for (_, task, optimizer, _), runs in cells.items():
        for method, lines in runs.items():
            for line in lines:
                name = f"{method} {line['rate']:g}" if method.endswith(" at") else method
                groups[f"{task}, {optimizer}", name].append((line, runs["constant"][0]))
    rows = []
    for (network, name), pairs in sorted(groups.items()):
        lines = [line for line, _ in pairs]
        rates = {held(line) for line in lines if name.endswith(OURS)}
        rows.append(
            [
                network,
                name,
                str(len({line["seed"] for line in lines})),
                f"{mean([100.0 * line['test_accuracy'] for line in lines]):.2f}",
                f"{geometric([error_ratio(*pair) for pair in pairs]):.3f}",
                to_target([steps_ratio(*pair) for pair in pairs]),
                ", ".join(sorted(rates)) or "–",
                seconds_a_step(lines, "seconds"),
                seconds_a_step(lines, "processor_seconds"),
            ]
        )
    head = ["network, optimizer", "method", "seeds", "test accuracy", "error ratio",
            "steps to target", "rate held", "seconds a step", "of the processor"]  # fmt: skip
    return markdown(head, rows)


def network_marks(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """What AutoLR was to reach on a network, a column for each optimizer; means over seeds."""
    marks = [("test accuracy − that of the best cosine, points", "≥ -0.2"),
             ("test accuracy − mean of the cosines, points", "> 0"), ("error ratio", "≤ 0.75"),
             ("steps to target", "≤ 0.40"),
             ("processor's seconds a step ÷ those of the constant rate", "≤ 1.03")]  # fmt: skip
    groups: dict[str, list[dict[str, list[Line]]]] = defaultdict(list)
    for (_, task, optimizer, _), runs in sorted(cells.items()):
        if OURS in runs:
            groups[f"{task}, {optimizer}"].append(runs)
    columns = [reached_on_network(group) for group in groups.values()]
    rows = [[*mark, *found] for mark, *found in zip(marks, *columns, strict=True)]
    return markdown(["figure", "mark", *groups], rows)


def reached_on_network(group: Sequence[dict[str, list[Line]]]) -> list[str]:
    """What stands against these marks, in their order; the best cosine is that of validation."""
    pairs = [(runs[OURS][0], runs["constant"][0]) for runs in group]
    raced = [(runs[OURS][0], tried) for runs in group if (tried := runs.get("CosineDecay at"))]
    best = [points(line, max(tried, key=lambda x: validation(x)[-1])) for line, tried in raced]
    usual = [mean([points(line, x) for x in tried]) for line, tried in raced]
    seconds = [
        [line["processor_seconds"] / line["steps"] for line in pair]
        for pair in pairs
        if all("processor_seconds" in line for line in pair)
    ]
    return [
        f"{mean(best):+.2f}" if best else "–",
        f"{mean(usual):+.2f}" if usual else "–",
        f"{geometric([error_ratio(*pair) for pair in pairs]):.3f}",
        to_target([steps_ratio(*pair) for pair in pairs]),
        f"{geometric([ours / its for ours, its in seconds]):.3f}" if seconds else "–",
    ]


def seconds_a_step(lines: Sequence[Line], clock: str) -> str:
    """Of the whole run, over those that were timed by that clock."""
    timed = [line for line in lines if clock in line]
    steps = sum(line["steps"] for line in timed)
    return f"{sum(line[clock] for line in timed) / steps:.3g}" if timed else "–"


def to_target(ratios: Sequence[float | None]) -> str:
    """Geometric mean of those that reach it, and how many do not."""
    known = [ratio for ratio in ratios if ratio is not None]
    mean_of_them = f"{geometric(known):.2f}" if known else "–"
    never = len(ratios) - len(known)
    return f"{mean_of_them} ({never} never)" if never else mean_of_them


def held(line: Line) -> str:
    """The rate that was held before the cool-down."""
    rules = ("warm", "raise", "back", "keep", "lower", "undo", "unprobed")
    rates = [rate for _, rate, rule, _ in line["decisions"] if rule in rules]
    return f"{rates[-1]:.2g}" if rates else "–"


def unbounded_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """AutoLR with 200 epochs and no plan, against the best run that knew its 15."""
    rows = []
    for ((suite, task, optimizer, seed), runs), ours in itertools.product(
        sorted(cells.items()), (OURS, BEFORE)
    ):
        found = runs.get(f"{ours}, horizon=None")
        if not found:
            continue
        line = found[0]
        fixed = [points(line, other) for m in (ORACLE, ours) for other in runs.get(m, [])]
        used = line["steps"] / line["epoch_steps"]
        given = round(line["planned_epochs"] * 200 / 15)
        rows.append(
            [
                f"{suite} {task}, {optimizer}",
                str(seed),
                ours,
                f"{100.0 * line['test_accuracy']:.1f}",
                f"{min(fixed):+.2f}" if fixed else "–",
                f"{used:.0f} of {given} ({used / given:.0%})",
            ]
        )
    head = ["suite, task, optimizer", "seed", "method", "test accuracy"]
    head += ["against the best fixed, points", "epochs"]
    return markdown(head, rows)


def shorter_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """AutoLR in all epochs and in fewer, against the constant rate in all of them."""
    rows = []
    for ours, share in itertools.product((OURS, BEFORE), SHARES):
        pairs = [
            (runs[ours + share][0], runs["constant"][0])
            for runs in cells.values()
            if ours + share in runs and any(ours + each in runs for each in SHARES[1:])
        ]
        if not pairs:
            continue
        taken = mean([line["steps"] / constant["steps"] for line, constant in pairs])
        change = [points(line, constant) for line, constant in pairs]
        better = geometric([x["test_accuracy"] / c["test_accuracy"] for x, c in pairs])
        errors = geometric([error_ratio(*pair) for pair in pairs])
        rows.append(
            [
                ours,
                f"{taken:.0%}",
                str(len(pairs)),
                f"{mean(change):+.2f} ({min(change):+.2f} to {max(change):+.2f})",
                f"{100.0 * (better - 1.0):+.1f} %",
                f"{100.0 * (errors - 1.0):+.1f} %",
            ]
        )
    head = ["method", "steps of the constant rate", "runs", "test accuracy, points (range)",
            "test accuracy, relative", "test errors"]  # fmt: skip
    return markdown(head, rows)


def marks_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """What AutoLR was to reach, and what it reached, a column for each version."""
    marks = [
        ("steps to target", "≤ 0.40"),
        ("regret: mean / worst", "≤ -0.2 / ≤ 0.6"),
        ("error ratio, cifar-small", "≤ 0.88"),
        ("spread over start rates, points", "≤ 0.3"),
        ("steps undone: mean / most", "≤ 5 %"),
        ("worse than constant by 0.5", "0"),
    ]
    known = [m for m in (OURS, BEFORE) if any(m in runs for runs in cells.values())]
    columns = [reached(cells, method) for method in known]
    head = [
        f"{method}, {sum(method in runs for runs in cells.values())} cells" for method in known
    ]
    rows = [[*mark, *found] for mark, *found in zip(marks, *columns, strict=True)]
    return markdown(["figure", "mark", *head], rows)


def reached(cells: dict[Cell, dict[str, list[Line]]], method: str) -> list[str]:
    """What stands against the marks, in their order."""
    runs = {cell: found for cell, found in cells.items() if method in found}
    pairs = [(found[method][0], found["constant"][0]) for found in runs.values()]
    ratios = [steps_ratio(*pair) for pair in pairs]
    known = [ratio for ratio in ratios if ratio is not None]
    regret = [-points(x[method][0], x[ORACLE][0]) for x in runs.values() if ORACLE in x]
    small = [x for cell, x in runs.items() if cell[0] == "cifar-small"]
    errors = [error_ratio(x[method][0], x["constant"][0]) for x in small]
    spreads = [
        max(tested) - min(tested)
        for found in runs.values()
        if len(tested := [100.0 * line["test_accuracy"] for line in found[method]]) > 1
    ]
    lost = [100.0 * thrown_away(line) for line, _ in pairs] if method == OURS else []
    return [
        f"{geometric(known):.2f} ({len(ratios) - len(known)} never)" if known else "–",
        f"{mean(regret):.2f} / {max(regret):.2f}" if regret else "–",
        f"{geometric(errors):.3f}" if errors else "–",
        f"{max(spreads):.2f}" if spreads else "–",
        f"{mean(lost):.1f} % / {max(lost):.1f} %" if lost else "–",
        str(sum(points(*pair) < -0.5 for pair in pairs)),
    ]


def races(cell: Cell, runs: dict[str, list[Line]]) -> bool:
    """Whether an optimizer that needs no rate ran in place of Adam."""
    replaced = any(method in runs for method in REPLACING)
    return cell[0] in RACED and cell[2] == "adam" and replaced


def race_tables(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """What needs no rate beside Adam with a constant rate, the best decay and AutoLR."""
    raced = {c: runs for c, runs in cells.items() if races(c, runs)}
    found = {method for runs in raced.values() for method in runs}
    methods = [m for m in ("constant", ORACLE, OURS, *REPLACING) if m in found]
    tables = [accuracy_table(raced, methods), figure_table(raced, methods)]
    behind = [
        max(points(line, runs[OURS][0]) for m in methods if m != OURS for line in runs.get(m, []))
        for runs in raced.values()
        if OURS in runs
    ]
    if behind:
        tables.append(
            f"{OURS} is behind the best of everything else by {mean(behind):.2f} points in the "
            f"mean of {len(behind)} cells."
        )
    return "\n\n".join(tables)


def log_table(cells: dict[Cell, dict[str, list[Line]]]) -> str:
    """Every move of one run, and why."""
    line = cells[LOGGED][OURS][0]
    rows = [
        [str(step), f"{rate:.3g}", rule, reason.replace("|", "/")]
        for step, rate, rule, reason in line["decisions"]
    ]
    return markdown(["step", "rate", "rule", "why"], rows)


def sections(lines: list[Line]) -> dict[str, str]:
    """Marker in the page → what stands there."""
    cells = by_cell(lines)
    seen = {method for runs in cells.values() for method in runs}
    order = ["constant", "ReduceLROnPlateau", "CosineDecay", "SwapEMAWeights", "GreedyLR",
             "PlateauLR", "CyclicalLR", "OneCycleLR", ORACLE, BEFORE, OURS]  # fmt: skip
    methods = [m for m in order if m in seen]
    variants = [m.name for m in METHODS if m.name == "constant, averaged" or "without" in m.name]
    variants += [f"0.1 {name}" for name in (*variants, "without trials", "without margin")]
    variants = list(dict.fromkeys(name for name in variants if name in seen))
    tuned = {cell: runs for cell, runs in cells.items() if cell[0] in CPU_SUITES}
    texts = {"accuracy": accuracy_table(tuned, methods), "figures": figure_table(tuned, methods),
             "auto": auto_table(tuned), "ablation": ablation_table(tuned, variants),
             "unbounded": unbounded_table(tuned), "shorter": shorter_table(tuned),
             "made-by": made_by(lines)}  # fmt: skip
    for suite in sorted({cell[0] for cell in tuned}):
        part = {cell: runs for cell, runs in tuned.items() if cell[0] == suite}
        texts[f"figures-{suite}"] = figure_table(part, methods)
    if any(OURS in runs for runs in tuned.values()):
        texts["marks"] = marks_table(tuned)
    if OURS in cells.get(LOGGED, {}):
        texts["log"] = log_table(cells)
    for suite in NETWORKS:
        part = {cell: runs for cell, runs in cells.items() if cell[0] == suite}
        if part:
            texts[suite] = network_table(part)
        if any(OURS in runs for runs in part.values()):
            texts[f"{suite}-marks"] = network_marks(part)
    for suite, more in APART.items():
        part = {cell: runs for cell, runs in cells.items() if cell[0] == suite}
        ran = {method for runs in part.values() for method in runs}
        own = [m for m in (*order, *more) if m in ran]
        if part:
            texts[suite] = accuracy_table(part, own) + "\n\n" + figure_table(part, own)
    if any(races(*cell) for cell in cells.items()):
        texts["race"] = race_tables(cells)
    return texts


def made_by(lines: list[Line]) -> str:
    """Versions and hardware behind the tables."""
    return "\n".join(f"* {text}" for text in sorted({line["made_by"] for line in lines}))


def main(arguments: Sequence[str] | None = None, echo: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=Path, default=LINES)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if out of date")
    options = parser.parse_args(arguments)
    page = options.page.read_text()
    texts = sections(read_lines(options.lines))
    texts |= tables_small.sections(read_lines(tables_small.LINES))
    made = fill(page, texts)
    if options.check:
        echo("up to date" if made == page else f"{options.page.name} is out of date")
        return int(made != page)
    options.page.write_text(made)
    echo(f"{options.page.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
