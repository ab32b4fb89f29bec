"""A page on which a person tells the served model what they want and sees the list move."""
