"""The daily report: what the tasks of the day reported, compared with earlier days and model versions."""
