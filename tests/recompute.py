"""Recompute metrics.json from the rows alone: `python tests/recompute.py artifacts/<run>`.

It reads `evals/` and, for guesses, `data/test.jsonl` (unpack the `rows.zip` of a run that is kept so), uses the standard library
only and imports nothing of the package, so that the figures of a run do not rest on the code that made them. Counts and
rates must be equal; p-values, Wilson and bootstrap intervals come from formulas written out here, the bootstrap from its
own draws.
"""

import json
import math
import random
import sys
from pathlib import Path

Z = 1.959963984540054  # the 97.5 % point of the normal distribution


def main(run):
    """Problems found in a run, one line each; empty where every figure holds."""
    metrics = json.loads((run / "metrics.json").read_text())
    files = {p.name.removesuffix(".jsonl"): read(p) for p in sorted((run / "evals").glob("*.*.jsonl"))}
    problems = [line for row in metrics["rows"] for line in check_row(row, files)]
    stored = {name_of(row) for row in metrics["rows"]}
    problems += [f"{name}: evaluated, but not in metrics.json" for name in files if name not in stored]
    problems += [line for c in metrics["comparisons"] for line in check_comparison(c, files)]
    problems += check_holm(metrics["comparisons"])
    return problems + [
        line
        for check in (check_guesses, check_ladder, check_words, check_first, check_injected)
        for line in check(run, metrics)
    ]


def check_guesses(run, metrics):
    """A blind guess among the options left, and what exceeds it."""
    if not metrics.get("elimination"):
        return
    asked = list(zip(read(run / "data/test.jsonl"), read(run / "evals/turn1.jsonl"), strict=True))
    for row in metrics["elimination"]:
        some = [(p, a) for p, a in asked if p["grader"] == "choice" and p["task"] == row["task"]]
        blind = [1 if a["correct"] else 1 / max(1, len(p["choices"]) - (a["answer"] is not None)) for p, a in some]
        blind = sum(blind) / len(blind)
        if not (same(row["blind"], blind) and same(row["excess"], row["acc_t2"] - blind) and row["n"] == len(some)):
            yield f"elimination, {row['setting']}, {row['task']}: the rows say {blind}"


def check_ladder(run, metrics):
    found = {share(read(path)) for path in (run / "evals/ladder").glob("*.oracle.jsonl")} | {
        share(read(run / "evals/prompted.oracle.jsonl"))
    }
    for row in metrics.get("ladder", []):
        if not any(same(row["acc_t2"], acc) for acc in found):
            yield f"ladder, {row['prompt']}: no file says {row['acc_t2']}"
    for row in metrics.get("learned", []):
        if not any(
            same(row["difference"], share(read(p)) - max(found)) for p in (run / "evals").glob("*.oracle.jsonl")
        ):
            yield f"learned, {row['setting']}: no file is {row['difference']} from the best prompt"


def check_words(run, metrics):
    found = []
    for path in (run / "evals/words").glob("*.jsonl"):
        before = {r["id"]: r for r in read(run / "evals" / f"{path.name.split('.')[0]}.oracle.jsonl")}
        rows = [r for r in read(path) if r["reflection"] not in (None, before[r["id"]]["reflection"])]
        found.append((len(rows), share(rows), share([before[r["id"]] for r in rows])))
    for row in metrics.get("words", []):
        if not any(n == row["n"] and same(a, row["mended"]) and same(b, row["unedited"]) for n, a, b in found):
            yield f"words, {row['edit']}: no file says {row['mended']} of {row['n']}"


def check_first(run, metrics):
    found = [share(read(path)) for path in (run / "evals/first").glob("*.jsonl")]
    for row in metrics.get("first", []):
        if not any(same(row["acc_t1"], acc) for acc in found):
            yield f"first, {row['adapter']}: no file says {row['acc_t1']}"


def check_injected(run, metrics):
    found = [(len(rows), share(rows)) for rows in map(read, (run / "evals/injected").glob("*.oracle.jsonl"))]
    for row in metrics.get("injected", []):
        if not any(n == row["n"] and same(acc, row["mended"]) for n, acc in found):
            yield f"injected, {row['setting']}: no file says {row['mended']} of {row['n']}"


def share(rows):
    return sum(r["turn2_correct"] for r in rows) / max(1, len(rows))


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def name_of(row):
    return ".".join(part for part in (row["setting"], row["mode"], row["control"]) if part)


def check_row(row, files):
    name = name_of(row)
    rows = [r for r in files.get(name, []) if row["task"] in ("all", r["task"])]
    n, first, second = len(rows), sum(r["turn1_correct"] for r in rows), sum(r["turn2_correct"] for r in rows)
    kinds = {"cc": (True, True), "ci": (True, False), "ic": (False, True), "ii": (False, False)}
    pairs = [(r["turn1_correct"], r["turn2_correct"]) for r in rows]
    want = {
        "n": n,
        "acc_t1": first / n if n else 0.0,
        "acc_t2": second / n if n else 0.0,
        "delta": (second - first) / n if n else 0.0,
        "flips": {kind: pairs.count(pair) for kind, pair in kinds.items()},
        "tokens": sum(r["tokens"] for r in rows),
    }
    differences = [b - a for a, b in pairs]
    found = [
        f"{name}, {row['task']}: {k} is {row[k]}, the rows say {v}" for k, v in want.items() if not same(row[k], v)
    ]
    for key, interval, tolerance in (
        ("acc_t1_ci", wilson(first, n), 1e-6),
        ("acc_t2_ci", wilson(second, n), 1e-6),
        ("delta_ci", bootstrap(differences), slack(differences)),
    ):
        if not near(row[key], interval, tolerance):
            found.append(f"{name}, {row['task']}: {key} is {row[key]}, the rows say about {interval}")
    return found


def check_comparison(c, files):
    b = {r["id"]: r["turn2_correct"] for r in files.get(c["b"], [])}
    pairs = [(r["turn2_correct"], b[r["id"]]) for r in files.get(c["a"], []) if r["id"] in b]
    differences = [x - y for x, y in pairs]
    wins, losses = differences.count(1), differences.count(-1)
    found = []
    for key, value in (
        ("n", len(pairs)),
        ("diff", sum(differences) / len(pairs) if pairs else 0.0),
        ("p_mcnemar", mcnemar(wins, losses)),
    ):
        if not same(c[key], value):
            found.append(f"{c['a']} against {c['b']}: {key} is {c[key]}, the rows say {value}")
    if not near(c["ci"], bootstrap(differences), slack(differences)):
        found.append(f"{c['a']} against {c['b']}: ci is {c['ci']}, the rows say about {bootstrap(differences)}")
    return found


def check_holm(comparisons):
    """Holm by its definition: reject from the smallest p upwards until one exceeds 0.05 / (number left)."""
    rejected = set()
    ordered = sorted(range(len(comparisons)), key=lambda i: comparisons[i]["p_mcnemar"])
    for rank, i in enumerate(ordered):
        if comparisons[i]["p_mcnemar"] >= 0.05 / (len(comparisons) - rank):
            break
        rejected.add(i)
    return [
        f"{c['a']} against {c['b']}: significant is {c['significant']}, Holm's procedure says {i in rejected}"
        for i, c in enumerate(comparisons)
        if c["significant"] != (i in rejected)
    ]


def same(a, b):
    return a == b if isinstance(b, dict | int) else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def near(a, b, tolerance):
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def wilson(k, n):
    if n == 0:
        return [0.0, 1.0]
    p, z2 = k / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return [middle - half, middle + half]


def bootstrap(differences, resamples=600):
    n = len(differences)
    if n == 0:
        return [-1.0, 1.0]
    if len(set(differences)) == 1:  # no spread to resample: what a kind that was never seen in n may weigh
        v, unseen = differences[0], 1 - 0.025 ** (1 / n)
        return [v - (1 + v) * unseen, v + (1 - v) * unseen]
    rng = random.Random(1)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(resamples))
    return [means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]]


def slack(differences):
    """Three quarters of a standard error: how far the ends of two bootstraps with so few resamples may lie apart."""
    n = len(differences)
    if n < 2 or len(set(differences)) == 1:
        return 1e-6
    mean = sum(differences) / n
    return 0.75 * math.sqrt(sum((d - mean) ** 2 for d in differences) / n / n) + 1 / n


def mcnemar(wins, losses):
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


if __name__ == "__main__":
    lines = main(Path(sys.argv[1]))
    print("\n".join(lines) or "every figure of metrics.json follows from the rows")
    sys.exit(bool(lines))
