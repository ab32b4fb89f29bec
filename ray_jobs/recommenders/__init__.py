"""What recommenders share: their contract, their bundles, and the bounds of what they are asked."""
