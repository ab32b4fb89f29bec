"""A page per day: what the tasks of the daily run reported, beside the days and the model versions before."""
