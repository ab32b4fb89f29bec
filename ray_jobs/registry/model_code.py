"""The script that MLflow runs to load the model (models from code)."""

from mlflow.models import set_model

from ray_jobs.registry.served import ServedRecommender

set_model(ServedRecommender())
