"""Register the trained model in MLflow as challenger, and as champion if it passes the gate.

Reads the per-user metrics of the evaluate stage, logs model, plots and card to the training run, creates one version
per trained model (a second run adds nothing), and moves the aliases. The card and ``promotion.json`` of the run have
every number of the gate; the version's tags have the deciding ones.
"""

STAGE = "register"
