"""Named losses that recipes share."""
