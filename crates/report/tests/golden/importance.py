"""Writes importance.json: what Optuna says of three studies, and a two-way analysis of variance by statsmodels.

    pip install numpy pandas statsmodels optuna scikit-learn
    python crates/report/tests/golden/importance.py

PED-ANOVA is `get_param_importances`, whose default it is from Optuna 5.0 on. Functional analysis of variance is
`FanovaImportanceEvaluator`, not normalized, asked with SEEDS seeds, since forests differ: their mean and standard deviation are written.
Optuna's takes keys of a logarithmic range as they are, so that the highest decade counts for nine tenths of it; ours takes their
logarithms, so Optuna is asked about logarithms too.
"""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas
import statsmodels.api
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from statsmodels.formula.api import ols

SEEDS = 30
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def described(distribution):
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)}
    kind = "integer" if isinstance(distribution, IntDistribution) else "float"
    return {"kind": kind, "low": distribution.low, "high": distribution.high, "log": distribution.log}


def logarithmic(study):
    """The same study over the logarithms of what is searched by them."""
    out = optuna.create_study(directions=study.directions)
    for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        params, distributions = dict(trial.params), dict(trial.distributions)
        for key, distribution in trial.distributions.items():
            if getattr(distribution, "log", False):
                params[key] = math.log(params[key])
                distributions[key] = FloatDistribution(math.log(distribution.low), math.log(distribution.high))
        out.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=trial.values))
    return out


def expected(study):
    """One table for each objective, with the sign that makes higher better."""
    out = []
    for place, direction in enumerate(study.directions):
        sign = 1.0 if direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        ped = get_param_importances(study, target=lambda trial: -sign * trial.values[place])
        if len(study.directions) == 1:
            alone = get_param_importances(study)
            assert all(abs(alone[key] - value) < 1e-12 for key, value in ped.items()), "minus is maximized"
        forests = [
            get_param_importances(
                logarithmic(study),
                evaluator=FanovaImportanceEvaluator(seed=seed),
                target=lambda trial: trial.values[place],
                normalize=False,
            )
            for seed in range(SEEDS)
        ]
        out.append({
            "scores": [sign * trial.values[place] for trial in complete(study)],
            "ped_anova": ped,
            "fanova": {
                key: {"mean": float(np.mean([forest[key] for forest in forests])), "std": float(np.std([forest[key] for forest in forests], ddof=1))}
                for key in forests[0]
            },
        })
    return out


def complete(study):
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def case(study):
    distributions = {key: described(distribution) for trial in study.trials for key, distribution in trial.distributions.items()}
    return {"distributions": distributions, "params": [trial.params for trial in complete(study)], "objectives": expected(study)}


def grid():
    random = np.random.default_rng(7)
    space = {"rate": [0.001, 0.003, 0.01, 0.03], "decay": [0.0, 0.0001, 0.001], "activation": ["relu", "tanh"]}

    def objective(trial):
        rate, decay = (space[key].index(trial.suggest_categorical(key, space[key])) for key in ("rate", "decay"))
        relu = trial.suggest_categorical("activation", space["activation"]) == "relu"
        return 0.9 - 0.02 * (rate - 1.4) ** 2 + 0.01 * decay + 0.006 * rate * decay + 0.008 * relu + random.normal(0, 0.004)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    for rate in space["rate"]:
        for decay in space["decay"]:
            for activation in space["activation"]:
                for _ in range(3):
                    study.enqueue_trial({"rate": rate, "decay": decay, "activation": activation})
    study.optimize(objective, n_trials=72)
    return study


def tpe():
    """One objective; a key that exists beside sgd only; trials that fail and that are pruned."""
    random = np.random.default_rng(8)

    def objective(trial):
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        dropout = trial.suggest_float("dropout", 0.0, 0.8)
        optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam", "rmsprop"])
        score = 0.95 - 0.05 * (math.log10(rate) + 2) ** 2 - 0.1 * (dropout - 0.3) ** 2 + random.normal(0, 0.003)
        if optimizer == "sgd":
            score -= 0.05 * (trial.suggest_float("momentum", 0.5, 0.99) - 0.9) ** 2 + 0.02
        if trial.number % 13 == 5:
            raise optuna.TrialPruned
        if trial.number % 17 == 6:
            raise ValueError("diverged")
        return score

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=2))
    study.optimize(objective, n_trials=90, catch=(ValueError,))
    return study


def two_objectives():
    random = np.random.default_rng(9)

    def objective(trial):
        rate = trial.suggest_float("rate", 1e-3, 1e-1, log=True)
        width = trial.suggest_int("width", 4, 64, log=True)
        batch = trial.suggest_int("batch", 8, 64)
        score = 0.9 - 0.06 * (math.log10(rate) + 1.8) ** 2 + 0.02 * math.log2(width) - 0.0004 * batch + random.normal(0, 0.004)
        return score, 1000.0 * width + 20.0 * width**2

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=3))
    study.optimize(objective, n_trials=80)
    return study


study = grid()
rows = [dict(trial.params) | {"score": trial.value} for trial in study.trials]
frame = pandas.DataFrame(rows)
table = statsmodels.api.stats.anova_lm(ols("score ~ C(rate) * C(decay) * C(activation)", frame).fit(), typ=2)["sum_sq"]
total = float(((frame.score - frame.score.mean()) ** 2).sum())
out = {
    "optuna": optuna.__version__,
    "anova": {"seeds": float(table["Residual"] / total)}
    | {key: float(table[f"C({key})"] / total) for key in ("rate", "decay", "activation")},
    "grid": case(study),
    "tpe": case(tpe()),
    "two_objectives": case(two_objectives()),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n")
