"""What the fronts of Optuna's TPE enclose, with two objectives, after 100 and after 200 trials.

    pip install optuna
    python crates/sweep/tests/golden/optuna_front.py > crates/sweep/tests/golden/optuna_front.csv

One row a function, sampler and seed. `default` is Optuna's own choice, which takes each parameter by itself where there are several
objectives; `multivariate` takes them together. Functions, bounds and the point of reference are those of crates/sweep/tests/front.rs.
"""

import math
import sys

# This folder has a file of the package's name.
sys.path.pop(0)
import optuna  # noqa: E402

SEEDS = 10
AFTER = (100, 200)
REFERENCE = (1.1, 4.0)


def rest(x):
    return 1 + 9 * sum(x[1:]) / (len(x) - 1)


def zdt1(x):
    g = rest(x)
    return x[0], g * (1 - math.sqrt(x[0] / g))


def zdt2(x):
    g = rest(x)
    return x[0], g * (1 - (x[0] / g) ** 2)


def zdt3(x):
    g = rest(x)
    return x[0], g * (1 - math.sqrt(x[0] / g) - x[0] / g * math.sin(10 * math.pi * x[0]))


def fonseca(x):
    """Both objectives depend on how the coordinates go together (Fonseca and Fleming 1995); from [0, 1] to [-2, 2]."""
    shift = 1 / math.sqrt(len(x))
    return tuple(
        scale * (1 - math.exp(-sum((4 * v - 2 + sign * shift) ** 2 for v in x))) for sign, scale in ((-1, 1), (1, 3.6))
    )


def enclosed(values):
    area, above = 0.0, REFERENCE[1]
    for first, second in sorted(values):
        if first < REFERENCE[0] and second < above:
            area += (REFERENCE[0] - first) * (above - second)
            above = second
    return area


DIMENSIONS = 5
FUNCTIONS = {"zdt1": zdt1, "zdt2": zdt2, "zdt3": zdt3, "fonseca": fonseca}
SAMPLERS = {"default": {}, "multivariate": {"multivariate": True}}


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"# Optuna {optuna.__version__}, TPESampler")
    print("function,sampler,seed,enclosed_100,enclosed_200")
    for name, function in FUNCTIONS.items():
        for kind, settings in SAMPLERS.items():
            for seed in range(SEEDS):
                sampler = optuna.samplers.TPESampler(seed=seed, **settings)
                study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
                study.optimize(
                    lambda trial: function([trial.suggest_float(f"x{i}", 0, 1) for i in range(DIMENSIONS)]),
                    n_trials=max(AFTER),
                )
                values = [trial.values for trial in study.trials]
                areas = ",".join(f"{enclosed(values[:after]):.4f}" for after in AFTER)
                print(f"{name},{kind},{seed},{areas}", flush=True)


main()
