"""Words that move a list: sentences, the items that they are about, and how strongly they count beside a recipe."""
