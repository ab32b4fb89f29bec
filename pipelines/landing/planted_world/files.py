"""The planted world on disk: landing files in the Amazon 2023 release's format, and the truth."""

import gzip
import html
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.landing.planted_world.catalogue import Item
from pipelines.landing.planted_world.world import Position, World


def write_world(world: World, folder: Path) -> tuple[Path, Path]:
    """Write ``reviews.jsonl.gz``, ``meta.jsonl.gz`` and ``truth/{users,positions,items}.jsonl`` into `folder`.

    Returns:
        Paths of the review file and the item file.
    """
    rng = random.Random(f"planted-files/{world.settings.seed}")
    reviews, meta = folder / "reviews.jsonl.gz", folder / "meta.jsonl.gz"
    write_lines(reviews, _review_lines(rng, world))
    write_lines(meta, item_lines(rng, world.items, world.settings.markup))
    write_truth(world, folder / "truth")
    return reviews, meta


def write_truth(world: World, folder: Path) -> None:
    """Write ``users.jsonl``, ``positions.jsonl`` and ``items.jsonl`` into `folder`."""
    write_lines(
        folder / "users.jsonl",
        ({"user_id": u.user_id, "tastes": [asdict(t) for t in u.tastes], "switch": u.switch} for u in world.users),
    )
    write_lines(folder / "positions.jsonl", (_position_truth(p) for p in world.positions))
    write_lines(
        folder / "items.jsonl",
        (
            {
                "item_id": item.item_id,
                "title": item.title,
                "category": item.category.name,
                "attributes": list(item.attributes),
                "accessory": item.accessory,
                "popularity": item.popularity,
            }
            for item in world.items
        ),
    )


def item_lines(rng: random.Random, items: Sequence[Item], markup: float = 0.0) -> list[dict[str, Any]]:
    """Lines of the item file; `markup` is the share of titles with HTML entities."""
    return [_item_line(rng, item, markup) for item in items]


def _review_lines(rng: random.Random, world: World) -> list[dict[str, Any]]:
    """Review lines by time; those of one user keep their order, so that line numbers order ties."""
    share = world.settings.duplicates
    lines: list[dict[str, Any]] = []
    for position in sorted(world.positions, key=lambda p: p.at):
        line = review_line(rng, position, world.settings.markup)
        lines.append(line)
        if rng.random() < share:
            shorter = line["text"].rsplit(" ", 3)[0]
            lines.append(line if rng.random() < 0.5 else {**line, "text": shorter})
    return lines


def review_line(rng: random.Random, position: Position, markup: float) -> dict[str, Any]:
    """A line of the review file; `markup` is the share of texts with HTML entities and tags."""
    text = position.review.text
    if rng.random() < markup:
        text = html.escape(text).replace("&quot;", "&#34;").replace(". ", ".<br />", 1)
    return {
        "rating": float(position.review.rating),
        "title": position.review.title,
        "text": text,
        "images": [],
        "asin": position.item.item_id,
        "parent_asin": position.item.item_id,
        "user_id": position.user_id,
        "timestamp": round(position.at.timestamp() * 1000),
        "helpful_vote": int(rng.expovariate(1.2)),
        "verified_purchase": rng.random() < 0.9,
    }


def _item_line(rng: random.Random, item: Item, markup: float) -> dict[str, Any]:
    title = html.escape(item.title) if "&" in item.title or rng.random() < markup else item.title
    return {
        "main_category": item.category.parent,
        "title": title,
        "average_rating": round(rng.uniform(3.4, 4.9), 1),
        "rating_number": round(2000 * item.popularity) + rng.randrange(20),
        "features": [],
        "description": list(item.description),
        "price": item.price,
        "images": [],
        "videos": [],
        "store": item.brand,
        "categories": [item.category.parent, item.category.name],
        "details": {"Brand": item.brand},
        "parent_asin": item.item_id,
        "bought_together": None,
    }


def _position_truth(position: Position) -> dict[str, Any]:
    review = position.review
    return {
        "user_id": position.user_id,
        "position": position.position,
        "item_id": position.item.item_id,
        "timestamp": round(position.at.timestamp() * 1000),
        "is_noise": position.is_noise,
        "meant_item_id": position.meant.item_id if position.meant else None,
        "rating": review.rating,
        "reasons": {
            "liked": list(review.liked),
            "disliked": list(review.disliked),
            "missed": list(review.missed),
            "avoided": list(review.avoided),
        },
        "text": review.text,
    }


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, compressed where the name ends in ``.gz``; the same records give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)
