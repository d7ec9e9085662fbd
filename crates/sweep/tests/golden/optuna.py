"""How many trials Optuna's TPE takes to come within a tolerance of the optimum of standard test functions.

    pip install optuna
    python crates/sweep/tests/golden/optuna.py > crates/sweep/tests/golden/optuna.csv

One row a function and seed; a search that does not get there within BUDGET trials counts as BUDGET. The functions, bounds and
tolerances are those of crates/sweep/tests/tpe.rs.
"""

import math
import os
import sys

sys.path.pop(0)  # this file is called as the package is
import optuna

SEEDS = range(int(os.environ.get("SEEDS", "20")))
BUDGET = 300

A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]
ALPHA = [1.0, 1.2, 3.0, 3.2]


def branin(trial):
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (y - b * x * x + c * x - 6) ** 2 + 10 * (1 - t) * math.cos(x) + 10


def hartmann6(trial):
    x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(6)]
    return -sum(
        alpha * math.exp(-sum(a * (v - p) ** 2 for a, p, v in zip(row_a, row_p, x)))
        for alpha, row_a, row_p in zip(ALPHA, A, P)
    )


def rosenbrock(trial):
    x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", -2, 2)
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def sphere(trial):
    x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
    return x * x + y * y + trial.suggest_categorical("c", [3.0, 0.0, 2.0, 1.0])


FUNCTIONS = [
    ("branin", branin, 0.397887, 0.05),
    ("hartmann6", hartmann6, -3.32237, 0.3),
    ("rosenbrock", rosenbrock, 0.0, 0.2),
    ("sphere", sphere, 0.0, 0.1),
]


def trials(function, optimum, tolerance, seed):
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(sampler=sampler)

    def stop(study, trial):
        if trial.value <= optimum + tolerance:
            study.stop()

    study.optimize(function, n_trials=BUDGET, callbacks=[stop])
    return len(study.trials)


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"# Optuna {optuna.__version__}, TPESampler(multivariate=True)")
    print("function,seed,trials")
    for name, function, optimum, tolerance in FUNCTIONS:
        for seed in SEEDS:
            print(f"{name},{seed},{trials(function, optimum, tolerance, seed)}", flush=True)


main()
