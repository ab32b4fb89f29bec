"""A version that was trained, evaluated and registered by the real stages, for tests that train it again."""

from ray_jobs import evaluate, register, train
from ray_jobs.registry import aliases, runs

SMALL = {"sasrec.epochs": 2, "sasrec.width": 16, "sasrec.learning_rate": 0.01, "sasrec.batch_size": 16}


def registered_version(warehouse, recipe="popularity", overrides=None, **given):
    """Run the three stages; gives ``<name>/<version>`` and what the train stage reported."""
    inputs = dict(warehouse.handoffs)
    overrides = {**SMALL, **(overrides or {})}
    trained = train.run(warehouse.request("train", recipe=recipe, overrides=overrides, inputs=inputs, **given))
    upstream = {f"train_recommender.{name}": value for name, value in trained.outputs.items()}
    champion = aliases.champion_of(runs.connect(warehouse.settings), "penchant-planted")
    beside = {"champion.model": f"penchant-planted/{champion}"} if champion else {}
    evaluated = evaluate.run(warehouse.request("evaluate", upstream={**upstream, **beside}, inputs=inputs))
    upstream |= {f"evaluate.{name}": value for name, value in evaluated.outputs.items()}
    inputs["measurements"] = evaluated.handoffs["measurements"]
    report = register.run(warehouse.request("register", upstream=upstream, inputs=inputs))
    return f"{report.outputs['model_name']}/{report.outputs['version']}", trained
