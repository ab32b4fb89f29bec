"""Our columns of reviews, items and events in files of any layout; True for those that a file must have."""

REVIEW_COLUMNS = {
    "user_id": True, "item_id": True, "rating": True, "reviewed_at": True,
    "title": False, "text": False, "verified": False, "helpful_votes": False,
}  # fmt: skip
ITEM_COLUMNS = {
    "item_id": True, "title": False, "brand": False, "categories": False, "price": False, "description": False,
}  # fmt: skip
EVENT_COLUMNS = {"user_id": True, "item_id": True, "action": True, "occurred_at": True, "context": False}
USUAL_NAMES = {"reviewed_at": "timestamp", "occurred_at": "timestamp", "action": "event_type"}
"""Common names of columns in other people's files, which need no mapping."""
