"""Figures of a codebook: use of the codes, collisions, and how well prefixes of codes group items."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ray_jobs.registry.plots import COLOURS, codebook_use, note, one_axes
from ray_jobs.tokenizers.collisions import collision_groups

_BARS = 30


def figures(
    codes: npt.NDArray[np.int_], level_sizes: Sequence[int], measures: Mapping[str, float]
) -> dict[str, Figure]:
    """The figures by name, without those for which nothing was measured.

    Args:
        codes: int[N, H], one row per item, without the level that resolves collisions.
        level_sizes: number of codes of each of the H levels.
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
    """Per level: number of codes, of codes in use, and of equally used codes with the same entropy (perplexity)."""
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
    """Number of tuples by the number of their items: 1, 2, 3, ..., or in bins 1, 2-3, 4-7, ... if there are many."""
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
    """A share by length of the compared prefix, beside its value by chance.

    Args:
        values, random: shares from 0 to 1 for prefixes of 1, 2, ... codes.
        label, random_label: what is counted, and how chance is defined.
    """
    figure, axes = one_axes(8, 4.2)
    depths = np.arange(1, len(values) + 1)
    axes.plot(depths, values, color=COLOURS[0], marker="o", lw=1.8, label=label)
    axes.plot(depths, random, color=COLOURS[2], marker="o", lw=1.8, ls="--", label=f"by chance: {random_label}")
    for depth, value in zip(depths, values, strict=True):
        note(axes, float(depth), value, f"{value:.2f}")
    axes.set_xticks(depths)
    axes.set_ylim(0, 1.08)
    axes.set_xlabel("first codes that are compared (count)")
    axes.set_ylabel("share (0 to 1)")
    axes.legend(frameon=False)
    axes.set_title(f"Share of {label}")
    return figure
