"""Framework-neutral contracts: tables, run identity, hand-offs between engines."""
