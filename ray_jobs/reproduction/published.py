"""Published results for these files: leave-one-out, every item ranked, Recall and NDCG at 5 and 10."""

from collections.abc import Mapping

METRICS = ("recall_5", "ndcg_5", "recall_10", "ndcg_10")

_RPG = "RPG (arXiv 2506.05781), table 2"
_CORNAC = "cornac's reproduction, README of its TIGER"
_ESASREC = "README of the eSASRec benchmark (sampled softmax)"

ROWS: tuple[tuple[str, str, tuple[float | None, ...], str], ...] = (
    ("popularity-leaky", "beauty", (None, None, 0.0152, None), "S3-Rec's popularity row"),
    ("bert4rec", "beauty", (0.0203, 0.0124, 0.0347, 0.0170), _RPG),
    ("bert4rec", "sports", (0.0115, 0.0075, 0.0191, 0.0099), _RPG),
    ("bert4rec", "toys", (0.0116, 0.0071, 0.0203, 0.0099), _RPG),
    ("sasrec", "beauty", (None, None, 0.0921, 0.0531), _ESASREC),
    ("sasrec", "sports", (None, None, 0.0569, 0.0314), _ESASREC),
    ("sasrec", "toys", (None, None, 0.0970, 0.0580), _ESASREC),
    ("hstu", "beauty", (0.0469, 0.0314, 0.0704, 0.0389), _RPG),
    ("hstu", "sports", (0.0258, 0.0165, 0.0414, 0.0215), _RPG),
    ("hstu", "toys", (0.0433, 0.0281, 0.0669, 0.0357), _RPG),
    ("tiger", "beauty", (0.0454, 0.0321, 0.0648, 0.0384), _RPG),
    ("tiger", "sports", (0.0264, 0.0181, 0.0400, 0.0225), _RPG),
    ("tiger", "toys", (0.0521, 0.0371, 0.0712, 0.0432), _RPG),
    ("tiger", "beauty", (0.0419, 0.0270, 0.0634, 0.0338), _CORNAC),
    ("tiger", "sports", (0.0240, 0.0155, 0.0394, 0.0204), _CORNAC),
    ("tiger", "toys", (0.0362, 0.0237, 0.0583, 0.0308), _CORNAC),
    ("rpg", "beauty", (0.0550, 0.0381, 0.0809, 0.0464), _RPG),
    ("rpg", "sports", (0.0314, 0.0216, 0.0463, 0.0263), _RPG),
    ("rpg", "toys", (0.0592, 0.0401, 0.0869, 0.0490), _RPG),
)
"""Label, data set, values of `METRICS` (None if not published) and source of each row."""

HIGHEST: Mapping[str, tuple[tuple[float | None, ...], str]] = {
    "beauty": ((None, None, 0.0994, 0.0531), "Align3GR (arXiv 2511.11255), table 1; N@10: README of eSASRec"),
    "sports": ((None, None, 0.0689, 0.0373), "PROMISE (arXiv 2601.04674), table 1"),
    "toys": ((None, None, 0.0970, 0.0580), "README of the eSASRec benchmark"),
}
"""By data set the highest published values of any method, and their sources."""

GATES = (
    ("sasrec", "beauty", "recall_10", 0.0921),
    ("sasrec", "beauty", "ndcg_10", 0.0531),
    ("ensrec", "beauty", "recall_10", 0.0980),
    ("ensrec", "beauty", "ndcg_10", 0.0565),
    ("ensrec", "sports", "recall_10", 0.0613),
    ("ensrec", "sports", "ndcg_10", 0.0343),
    ("ensrec", "toys", "recall_10", 0.1061),
    ("ensrec", "toys", "ndcg_10", 0.0625),
    ("rpg", "beauty", "recall_10", 0.0809),
    ("rpg", "beauty", "ndcg_10", 0.0464),
    ("hstu", "beauty", "recall_10", 0.0704),
    ("bert4rec", "beauty", "recall_10", 0.0347),
    ("tiger", "beauty", "recall_5", 0.0419),
    ("tiger", "sports", "recall_5", 0.0240),
    ("tiger", "toys", "recall_5", 0.0362),
    ("tiger_decoder", "beauty", "recall_5", 0.0419),
    ("liger", "beauty", "recall_10", 0.0919),
    ("liger", "beauty", "ndcg_10", 0.0473),
)
"""Label, data set, metric, and the value that a reproduction must reach with the items of the history excluded.

A claim that was only read at second hand, as EnsRec's, is a gate and no published row.
"""
