"""Everything that touches a language model: the port, the ledger, the prompts and the checks on answers."""
