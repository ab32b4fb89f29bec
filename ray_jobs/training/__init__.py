"""Training of recommenders: one loop for all recipes, run by Ray Train."""
