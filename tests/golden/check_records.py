"""Reads what `pipeline export EXPERIMENT` writes with the programs that it is written for, and compares it with the database.

    pip install tensorboard optuna mlflow          (mlflow-skinny does; each part that cannot be imported says SKIPPED)
    pipeline export NAME --tensorboard logs --mlflow mlruns --optuna study.db
    python tests/golden/check_records.py results.db NAME logs mlruns study.db

Importances are compared with those of the report that a sweep leaves beside the database, in reports/NAME. Through servers on this machine (pip install optuna-dashboard), an address in the place of `mlruns`, and one behind the rest:

    MLFLOW_ALLOW_FILE_STORE=true mlflow server --backend-store-uri mlruns --port 5177
    optuna-dashboard --port 5178 sqlite:///study.db
    python tests/golden/check_records.py results.db NAME logs http://127.0.0.1:5177 study.db http://127.0.0.1:5178
"""

import json
import os
import sqlite3
import struct
import sys
import urllib.request
from pathlib import Path


def runs_of(database, name):
    rows = sqlite3.connect(database)
    rows.row_factory = sqlite3.Row
    runs = [dict(row) for row in rows.execute("SELECT * FROM results WHERE experiment = ? ORDER BY position", [name])]
    for run in runs:
        epochs = rows.execute("SELECT * FROM epochs WHERE run_id = ? ORDER BY epoch", [run["run_id"]])
        run["curve"] = [dict(epoch) for epoch in epochs]
    return [run for run in runs if run["run_id"] is not None]


def single(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def tensorboard(folder, runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import metadata

    folders = sorted(path.parent for path in Path(folder).rglob("*tfevents*"))
    assert len(folders) == len(runs), (len(folders), len(runs))
    found = []
    for path in folders:
        events = EventAccumulator(str(path)).Reload()
        scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        file = next(path.glob("*tfevents*"))
        parameters = {}
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == metadata.SESSION_START_INFO_TAG:
                    start = metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
                    parameters = {key: getattr(kind, kind.WhichOneof("kind")) for key, kind in start.hparams.items()}
        found.append((scalars, parameters))
    for run in runs:
        curve = [(epoch["epoch"], single(epoch["validation_top1"])) for epoch in run["curve"]]
        loss = [(epoch["epoch"], single(epoch["train_loss"])) for epoch in run["curve"]]
        settings = flat(json.loads(run["settings"]))
        same = [
            parameters
            for scalars, parameters in found
            if scalars["validation/top1"] == curve
            and scalars["train/loss"] == loss
            and scalars["test/top1"] == [(run["tested_epoch"], single(run["test_top1"]))]
            and all(parameters[key] == value for key, value in settings.items())
            and parameters["seed"] == run["seed"]
        ]
        assert same, f"run {run['run_id']} is not there"
    print(f"tensorboard: {len(runs)} runs, {len(found[0][0])} measures and {len(found[0][1])} hyperparameters each, equal")


def flat(settings):
    """Keys and values as records have them: a table by its keys, a schedule's name as the kind of the table that it stands for."""
    out = {}
    for key, value in settings.items():
        if key == "train.schedule" and isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict):
            out |= flat({f"{key}.{part}": inner for part, inner in value.items()})
        else:
            out[key] = value
    return out


def mlflow(folder, runs, name):
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder if "://" in folder else Path(folder).resolve().as_uri())
    experiment = client.get_experiment_by_name(name)
    assert experiment, client.search_experiments()
    found = client.search_runs([experiment.experiment_id], max_results=5000)
    assert len(found) == len(runs), (len(found), len(runs))
    for run in runs:
        [same] = [other for other in found if other.data.tags["pipeline.run"] == str(run["run_id"])]
        assert same.info.status == "FINISHED" and same.info.run_name == run["label"], same.info
        for key, value in flat(json.loads(run["settings"])).items():
            known = same.data.params.get(key)
            assert (float(known) == value) if isinstance(value, (int, float)) else known == str(value), (key, known, value)
        history = client.get_metric_history(same.info.run_id, "validation/top1")
        assert [(metric.step, metric.value) for metric in history] == [
            (epoch["epoch"], epoch["validation_top1"]) for epoch in run["curve"]
        ]
        assert same.data.metrics["test/top1"] == run["test_top1"]
    best = client.search_runs([experiment.experiment_id], order_by=["metrics.`validation/top1` DESC"], max_results=1)[0]
    print(f"mlflow: {len(runs)} runs equal; best by validation: run {best.data.tags['pipeline.run']}, {best.info.run_name}")


def optuna(file, runs, name, database):
    import warnings

    import optuna as library

    warnings.simplefilter("ignore")
    library.logging.set_verbosity(library.logging.ERROR)
    study = library.load_study(study_name=name, storage=f"sqlite:///{file}")
    measures = study.user_attrs["objective"].split(", ")
    assert len(study.trials) == len(runs) and study.metric_names == measures
    for trial, run in zip(study.trials, runs):
        for key, value in json.loads(run["settings"]).items():
            if isinstance(value, (list, dict)):
                value = json.dumps(value, separators=(",", ":"))
            assert trial.params[key] == value, (key, trial.params[key], value)
        if run["status"] == "done":
            assert trial.state.name == "COMPLETE" and trial.values == [run[measure] for measure in measures]
            assert trial.user_attrs["test_top1"] == run["test_top1"] and trial.user_attrs["seed"] == run["seed"]
        steps = {epoch["epoch"]: epoch["validation_top1"] for epoch in run["curve"]}
        assert trial.intermediate_values == steps
    done = [run for run in runs if run["status"] == "done"]
    sign = {measure: -1 if direction.name == "MAXIMIZE" else 1 for measure, direction in zip(measures, study.directions)}
    lows = lambda run: [sign[measure] * run[measure] for measure in measures]
    ahead = lambda a, b: a != b and all(x <= y for x, y in zip(a, b))
    front = {run["run_id"] for run in done if not any(ahead(lows(other), lows(run)) for other in done)}
    assert {trial.user_attrs["run"] for trial in study.best_trials} == front, "the best trials"
    print(f"optuna {library.__version__}: {len(runs)} trials equal, by {' and '.join(measures)}; best: runs {sorted(front)}")
    try:
        importances(library, study, measures, sign, Path(database).parent / "reports" / name / "frames" / "importance.csv")
    except (ImportError, RuntimeError) as error:
        print(f"importances SKIPPED: {error}")


def importances(library, study, measures, sign, frame):
    """The report's, where there is one beside the database and the study is of one network: PED-ANOVA to rounding, functional analysis
    of variance within the spread of Optuna's forests over 30 seeds. Optuna's forests get logarithms of what is searched by them."""
    import csv
    import math
    from statistics import mean, stdev

    if not frame.is_file():
        return print(f"importances SKIPPED: there is no {frame}")
    rows = list(csv.DictReader(frame.open()))
    if len({row["network"] for row in rows}) != 1:
        return print("importances SKIPPED: the report has them for each network")
    scaled = library.create_study(directions=study.directions)
    for trial in study.get_trials(states=(library.trial.TrialState.COMPLETE,)):
        params, distributions = dict(trial.params), dict(trial.distributions)
        for key, distribution in trial.distributions.items():
            if getattr(distribution, "log", False):
                params[key] = math.log(params[key])
                ends = math.log(distribution.low), math.log(distribution.high)
                distributions[key] = library.distributions.FloatDistribution(*ends)
        scaled.add_trial(library.trial.create_trial(params=params, distributions=distributions, values=trial.values))
    for place, measure in enumerate(measures):
        own = {row["key"]: row for row in rows if row["objective"] == measure}
        ped = library.importance.get_param_importances(study, target=lambda trial: sign[measure] * trial.values[place])
        for key, row in own.items():
            assert not row["ped_anova"] or abs(float(row["ped_anova"]) - ped[key]) < 1e-6, (measure, key, row, ped[key])
        forests = [
            library.importance.get_param_importances(
                scaled,
                evaluator=library.importance.FanovaImportanceEvaluator(seed=seed),
                target=lambda trial: trial.values[place],
                normalize=False,
            )
            for seed in range(30)
        ]
        worst = 0.0
        for key, row in own.items():
            if row["variance_explained"]:
                found = [forest[key] for forest in forests]
                worst = max(worst, abs(float(row["variance_explained"]) - mean(found)) / stdev(found))
        assert worst <= 3.5, f"{measure}: {worst} standard deviations"
        shares = ", ".join(f"{key} {ped[key]:.4f}" for key in ped)
        print(f"importances for {measure}: PED-ANOVA equal ({shares}); forests within {worst:.1f} standard deviations of Optuna's")


def dashboard(address, runs, name):
    def get(path):
        with urllib.request.urlopen(address.rstrip("/") + path) as answer:
            return json.load(answer)

    [study] = [study for study in get("/api/studies")["study_summaries"] if study["study_name"] == name]
    assert study["directions"] == ["maximize"], study
    shown = get(f"/api/studies/{study['study_id']}?after=0")
    assert len(shown["trials"]) == len(runs), (len(shown["trials"]), len(runs))
    for trial, run in zip(sorted(shown["trials"], key=lambda trial: trial["number"]), runs):
        found = {parameter["name"]: parameter["param_external_value"] for parameter in trial["params"]}
        for key, value in json.loads(run["settings"]).items():
            assert float(found[key]) == value if isinstance(value, (int, float)) else key in found, (key, found, value)
        if run["status"] == "done":
            assert trial["state"] == "Complete" and trial["values"] == [run["validation_top1"]], trial
        steps = {point["step"]: point["value"] for point in trial["intermediate_values"]}
        assert steps == {epoch["epoch"]: epoch["validation_top1"] for epoch in run["curve"]}
    best = max(run["validation_top1"] for run in runs if run["status"] == "done")
    assert shown["best_trials"] and all(trial["values"] == [best] for trial in shown["best_trials"])
    print(f"optuna-dashboard: {len(runs)} trials equal; best {best}, trial {shown['best_trials'][0]['number']}")


if __name__ == "__main__":
    database, name, logs, mlruns, study, *addresses = sys.argv[1:]
    runs = runs_of(database, name)
    assert runs, f"no run of {name}"
    for part in (lambda: tensorboard(logs, runs), lambda: mlflow(mlruns, runs, name), lambda: optuna(study, runs, name, database)):
        try:
            part()
        except ImportError as error:
            print(f"SKIPPED: {error}")
    for address in addresses:
        dashboard(address, runs, name)
