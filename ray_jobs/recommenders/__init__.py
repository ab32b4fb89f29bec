"""What recommenders share: their interface, their bundles, and the checks of requests."""
