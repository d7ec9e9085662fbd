"""Trials that Optuna's CmaEsSampler takes to come within a tolerance of the optimum.

pip install optuna cmaes
"""

import math
import sys

# This folder has a file of the package's name.
sys.path.pop(0)
import optuna  # noqa: E402

BUDGET = 300
SEEDS = 100

A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def branin(x):
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (x[1] - b * x[0] ** 2 + c * x[0] - 6) ** 2 + 10 * (1 - t) * math.cos(x[0]) + 10


def hartmann6(x):
    return -sum(
        alpha * math.exp(-sum(a * (v - p) ** 2 for a, v, p in zip(A[i], x, P[i])))
        for i, alpha in enumerate([1.0, 1.2, 3.0, 3.2])
    )


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def ellipsoid(x):
    return sum(100 ** (i / 4) * (v - 1) ** 2 for i, v in enumerate(x))


FUNCTIONS = [
    ("branin", branin, [(-5, 10), (0, 15)], 0.397887 + 0.05),
    ("hartmann6", hartmann6, [(0, 1)] * 6, -3.32237 + 0.3),
    ("rosenbrock", rosenbrock, [(-2, 2)] * 2, 0.2),
    ("ellipsoid", ellipsoid, [(-5, 5)] * 5, 0.1),
]

optuna.logging.set_verbosity(optuna.logging.ERROR)
print("function,seed,trials")
for name, function, space, goal in FUNCTIONS:
    for seed in range(SEEDS):
        sampler = optuna.samplers.CmaEsSampler(seed=seed)
        study = optuna.create_study(sampler=sampler)
        trials = BUDGET
        for number in range(BUDGET):
            trial = study.ask()
            value = function([trial.suggest_float(f"x{i}", low, high) for i, (low, high) in enumerate(space)])
            study.tell(trial, value)
            if value <= goal:
                trials = number + 1
                break
        print(f"{name},{seed},{trials}")
        sys.stdout.flush()
