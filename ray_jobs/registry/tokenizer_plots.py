"""Figures of a codebook: use of the codes, collisions, and what a prefix of codes says about an item."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ray_jobs.registry.plots import COLOURS, codebook_use, one_axes
from ray_jobs.tokenizers.collisions import collision_groups

_BARS = 30


def figures(
    codes: npt.NDArray[np.int_], level_sizes: Sequence[int], measures: Mapping[str, float]
) -> dict[str, Figure]:
    """Every figure that there is something to draw for, by name.

    Args:
        codes: int[N, H], one row per item, without the level that tells collisions apart.
        level_sizes: codes per level, H numbers.
        measures: those of `ray_jobs.tokenizers.quality.quality_report`.
    """
    drawn = {
        "codebook_use": codebook_use(codes, level_sizes),
        "perplexity": perplexity(level_sizes, measures),
        "collisions": collisions(codes),
    }
    depths = range(1, len(level_sizes) + 1)
    for name, measure, label, random in (
        ("prefix_purity", "purity", "items in their prefix's commonest category", "categories permuted"),
        ("neighbours", "neighbours", "neighbours with the same prefix", "any other item"),
    ):
        if f"{measure}_1" in measures:
            values = [measures[f"{measure}_{depth}"] for depth in depths]
            drawn[name] = by_depth(values, [measures[f"{measure}_{depth}_random"] for depth in depths], label, random)
    return drawn


def perplexity(level_sizes: Sequence[int], measures: Mapping[str, float]) -> Figure:
    """Per level: codes there are, codes in use, and codes there would be if all were used alike (perplexity)."""
    figure, axes = one_axes(8, 4.2)
    levels = np.arange(len(level_sizes))
    used = [size - measures[f"dead_codes_{level}"] for level, size in enumerate(level_sizes)]
    spread = [measures[f"perplexity_{level}"] for level in levels]
    for place, (values, colour, label) in enumerate(
        ((level_sizes, COLOURS[2], "codes"), (used, COLOURS[0], "in use"), (spread, COLOURS[1], "perplexity"))
    ):
        bars = axes.bar(levels + (place - 1) * 0.28, values, 0.26, color=colour, label=label)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], fontsize=7.5, padding=2)
    axes.set_xticks(levels, [f"level {level + 1}" for level in levels])
    axes.set_ylabel("codes (count)")
    axes.margins(y=0.1)
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=8.5)
    axes.set_title("How evenly the codes of a level are used")
    return figure


def collisions(codes: npt.NDArray[np.int_]) -> Figure:
    """How many tuples stand for one item, for two, and so on; where many do, for 1, for 2 to 3, for 4 to 7, ..."""
    figure, axes = one_axes(8, 4.2)
    sizes = np.bincount(collision_groups(codes.astype(np.int32)))
    largest = int(sizes.max())
    shared = sizes[sizes > 1].sum() / len(codes)
    if largest <= _BARS:
        axes.bar(range(1, largest + 1), np.bincount(sizes)[1:], color=COLOURS[0])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        edges = 2 ** np.arange(largest.bit_length() + 1)
        axes.stairs(np.histogram(sizes, edges)[0], edges, fill=True, color=COLOURS[0], edgecolor="white")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlabel("items with the same tuple (count)")
    axes.set_ylabel("tuples (count, log scale)")
    axes.set_title(f"{shared:.1%} of {len(codes):,} items share their tuple; the most on one tuple: {largest:,}")
    return figure


def by_depth(values: Sequence[float], random: Sequence[float], label: str, random_label: str) -> Figure:
    """A share per number of first codes that are compared, beside what chance gives.

    Args:
        values, random: shares from 0 to 1 for 1, 2, ... first codes.
        label, random_label: what is counted, and what chance means.
    """
    figure, axes = one_axes(8, 4.2)
    depths = np.arange(1, len(values) + 1)
    axes.plot(depths, values, color=COLOURS[0], marker="o", lw=1.8, label=label)
    axes.plot(depths, random, color=COLOURS[2], marker="o", lw=1.8, ls="--", label=f"by chance: {random_label}")
    for depth, value in zip(depths, values, strict=True):
        axes.annotate(f"{value:.2f}", (depth, value), xytext=(0, 5), textcoords="offset points", ha="center", size=8)
    axes.set_xticks(depths)
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("first codes that are compared (count)")
    axes.set_ylabel("share (0 to 1)")
    axes.legend(frameon=False)
    axes.set_title(f"Share of {label}")
    return figure
