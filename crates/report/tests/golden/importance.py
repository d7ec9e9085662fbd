"""Writes importance.json: a two-way analysis of variance by statsmodels, and PED-ANOVA by its definition.

    pip install numpy pandas statsmodels
    python crates/report/tests/golden/importance.py
"""

import json
from pathlib import Path

import numpy as np
import pandas
import statsmodels.api
from statsmodels.formula.api import ols

random = np.random.default_rng(7)
rows = []
for rate in range(4):
    for decay in range(3):
        for seed in range(5):
            score = 0.9 - 0.02 * (rate - 1.4) ** 2 + 0.01 * decay + 0.006 * rate * decay + random.normal(0, 0.01)
            rows.append({"rate": rate, "decay": decay, "score": float(score)})
frame = pandas.DataFrame(rows)
table = statsmodels.api.stats.anova_lm(ols("score ~ C(rate) * C(decay)", frame).fit(), typ=2)["sum_sq"]
total = float(((frame.score - frame.score.mean()) ** 2).sum())
shares = {name: float(table[term] / total) for name, term in
          [("rate", "C(rate)"), ("decay", "C(decay)"), ("together", "C(rate):C(decay)"), ("seeds", "Residual")]}

# Watanabe et al. 2023: the divergence of p(x | best) from p(x), here over frequencies, times gamma'^2; divided by the variance of
# the indicator, gamma' (1 - gamma').
best = frame.score >= frame.score.sort_values(ascending=False).iloc[5]
top = best.mean()
ped = {}
for key in ("rate", "decay"):
    among_all = frame[key].value_counts(normalize=True)
    among_best = frame[key][best].value_counts(normalize=True).reindex(among_all.index, fill_value=0.0)
    divergence = (among_all * (among_best / among_all - 1) ** 2).sum()
    ped[key] = float(top ** 2 * divergence / (top * (1 - top)))

Path(__file__).with_suffix(".json").write_text(json.dumps({"rows": rows, "shares": shares, "ped_anova": ped}) + "\n")
