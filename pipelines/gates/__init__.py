"""Quality gates: checks that a table's rows must pass before they are published.

Only `pipelines.gates.gate` imports Great Expectations, which takes seconds to load.
"""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
