"""Writes statistics.json: golden cases for crates/report/src/statistics, from scipy and statsmodels.

    pip install numpy scipy statsmodels
    python crates/report/tests/golden/statistics.py
"""

import json
import math
from pathlib import Path

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

random = np.random.default_rng(20261123)


def samples():
    for n in (2, 3, 5, 10, 30):
        center = random.normal(0.9, 0.01, n)
        yield [float(x) for x in center], [float(x) for x in center - random.normal(0.004, 0.006, n)]
    # Accuracies over 1,000 images: ties among the differences, and zero differences.
    yield [0.912, 0.915, 0.909, 0.921, 0.917, 0.913], [0.910, 0.913, 0.911, 0.915, 0.917, 0.911]


paired = []
for a, b in samples():
    t = stats.ttest_rel(a, b)
    interval = t.confidence_interval(0.95)
    welch = stats.ttest_ind(a, b, equal_var=False)
    difference = np.array(a) - np.array(b)
    # Multiples of 1/1000 are compared as such: equal differences must tie.
    if len(a) == 6:
        scaled = np.round(difference * 1000)
        exact = stats.wilcoxon(scaled, method=stats.PermutationMethod(n_resamples=math.inf))
    else:
        exact = stats.wilcoxon(difference, method="exact")
    paired.append({
        "a": a, "b": b,
        "mean_a": float(np.mean(a)), "std_a": float(np.std(a, ddof=1)),
        "interval_a": [float(x) for x in stats.t.interval(0.95, len(a) - 1, np.mean(a), stats.sem(a))],
        "t": float(t.statistic), "p": float(t.pvalue), "interval": [float(interval.low), float(interval.high)],
        "cohens_d": float(difference.mean() / difference.std(ddof=1)),
        "welch_t": float(welch.statistic), "welch_p": float(welch.pvalue), "welch_freedom": float(welch.df),
        "wilcoxon_scale": 1000.0 if len(a) == 6 else 0.0,
        "wilcoxon_statistic": float(exact.statistic), "wilcoxon_p": float(exact.pvalue),
    })

many_a = random.normal(0, 1, 300)
many_b = many_a - random.normal(0.1, 1, 300)
approximate = stats.wilcoxon(many_a, many_b, method="approx", correction=False)

counts = [(0, 0), (3, 0), (1, 9), (10, 14), (12, 12), (10, 15), (30, 12), (200, 260), (25, 27), (0, 60)]
tables = []
for b, c in counts:
    exact = b + c < 25  # from b = c = 13 on statsmodels lets the correction overshoot; we say p = 1
    result = mcnemar([[900, b], [c, 50]], exact=exact, correction=True)
    tables.append({"only_first": b, "only_second": c, "p": float(result.pvalue), "exact": exact})

families = []
for p in ([0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.9, 0.001, 0.06], [0.02, 0.02, 0.02]):
    families.append({"p": p, "adjusted": [float(x) for x in multipletests(p, method="holm")[1]]})

power = TTestPower()
powers = []
for d in (0.2, 0.35, 0.5, 0.8, 1.2, 2.0, 3.5):
    for n in (2, 3, 5, 8, 20, 100):
        value = float(power.power(d, n, 0.05))
        # scipy's noncentral t gives NaN where the power is 1 to all digits.
        powers.append({"cohens_d": d, "pairs": n, "power": 1.0 if math.isnan(value) else value})
needed = []
for d in (0.05, 0.2, 0.35, 0.5, 0.8, 1.2, 2.0, 3.5, 12.0):
    n = 2
    while power.power(d, n, 0.05) < 0.8:  # NaN ends it too
        n += 1
    needed.append({"cohens_d": d, "pairs": n})

quantiles = [
    {"freedom": float(v), "probability": q, "t": float(stats.t.ppf(q, v))}
    for v in (1, 2, 3, 4, 9, 30, 199, 2.7)
    for q in (0.005, 0.025, 0.3, 0.9, 0.975, 0.995)
]
noncentral = [
    {"t": t, "freedom": float(v), "delta": delta,
     "p": float(stats.nct.cdf(t, v, delta) if delta else stats.t.cdf(t, v))}
    for t in (-2.0, 0.5, 2.776, 4.3) for v in (1, 2, 4, 29) for delta in (0.0, 0.7, 3.0)
]

Path(__file__).with_suffix(".json").write_text(json.dumps({
    "made_by": f"numpy {np.__version__}, scipy {scipy.__version__}, statsmodels {statsmodels.__version__}",
    "paired": paired,
    "wilcoxon_many": {"a": [float(x) for x in many_a], "b": [float(x) for x in many_b],
                      "statistic": float(approximate.statistic), "p": float(approximate.pvalue)},
    "mcnemar": tables, "holm": families, "powers": powers, "needed": needed,
    "quantiles": quantiles, "noncentral": noncentral,
}, indent=1, allow_nan=False) + "\n")
