"""Published results, measured again on the field's benchmark sequences."""
