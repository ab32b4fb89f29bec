"""Quality gates: what must hold of a table's rows before anybody can read them."""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

from pipelines.gates.gate import Gate
from pipelines.gates.result import GateResult, Outcome

__all__ = ["Gate", "GateResult", "Outcome"]
