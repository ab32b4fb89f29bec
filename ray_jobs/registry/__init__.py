"""MLflow runs, model versions, their cards and their promotion."""
