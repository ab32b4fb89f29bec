"""What MLflow runs to make the model again: models-from-code needs a file of its own."""

from mlflow.models import set_model

from ray_jobs.registry.served import ServedRecommender

set_model(ServedRecommender())
