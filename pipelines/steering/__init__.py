"""The samples of the preference benchmark, built from histories, preferences and vectors; no Spark in here."""
