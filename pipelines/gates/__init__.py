"""Quality gates: what must hold of a table's rows before anybody can read them.

Great Expectations takes seconds to load: only `pipelines.gates.gate` imports it.
"""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
