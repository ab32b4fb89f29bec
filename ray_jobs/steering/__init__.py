"""The steering layer: parse a preference, find the items it is about, and weigh it against a recipe's scores."""
