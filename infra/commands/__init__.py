"""Commands of `infra.command_line` that need the registries of `schemas`: what there is, and running one stage."""
