"""Constrained decoding: against Hugging Face, its share of a step, its index, and its recall.

    python -m tests.bench.bench_decoding --parts generate constraint build rules recall sets

generate    The same weights in TIGER's layout and in transformers' T5ForConditionalGeneration, whose `generate` gets
            `prefix_allowed_tokens_fn` over a dict from prefix to tokens, built before the clock starts. Both read 20
            items, keep the same beams, return all of them, and score with a softmax over all tokens. Items are
            compared position by position; a difference is explained where both scores there differ by less than 1e-5
            of their size. Both sides run in turns in this process; ratios are of pairs. "decoding" leaves the encoder
            out on both sides (each gets its states). Where ``--hf-rows`` is less than the batch, Hugging Face decodes
            as many rows at once only, and queries a second are compared. "compiled" is TIGER's setting
            `compile_search`, for batches of one; it needs a C++ compiler, and half a minute before the clock starts.
            "products" are the products with weights that encoding and decoding take, alone, one call of torch's each;
            "bound" is the ratio if all else took no time.
bound       What part of that bound is reached, without Hugging Face: the products' time as a share of ours and of the
            compiled search's, in turns. It may exceed 100 %, since `ray_jobs.training.linear` has faster products than
            torch on some processors; "linear" is the time of the same products by it.
constraint  Selection of beams under the trie, minus the same without a trie (all codes allowed, the same top-k), as a
            share of a step that has none; log-probabilities are those of the model, recorded, so that the difference
            is not lost in the model's noise. "alone" is everything that the search does beside the model. "compiled":
            for one row, the whole of decoding in compiled code, with the trie and without; medians of 20 in turns.
build       Time and memory of the trie.
rules       A search in which a share of the items may come, beside one without rules, in turns; every row has its own
            items. "under the rule": milliseconds of the whole search, from histories to items.
recall      Beam search against exact scores of the whole of a small catalogue, before and after training on histories
            whose next item the last one's first code foretells.

Codes have three levels of 256, planted in clusters (some prefixes hold many items, most hold few), and a level that
tells items apart that share those. Times are medians; in brackets, the middle half of the repeats.
"""

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from ray_jobs.data.batches import Batch, make_batch
from ray_jobs.data.catalogue import Catalogue
from ray_jobs.decoding.beam_search import _top, constrained_beam_search
from ray_jobs.decoding.trie import Trie
from ray_jobs.recipes.generative.base import CodeTokens
from ray_jobs.recipes.generative.t5 import Memory
from ray_jobs.recipes.generative.tiger import Tiger, TigerSettings
from ray_jobs.recipes.sequential.setrec import SETRec, SETRecSettings
from ray_jobs.training.linear import linear

CODES = 256
Clock = list[float]
now = time.perf_counter


class AllTokens(CodeTokens):
    """Probabilities over all tokens, as a language model has them."""

    def log_probabilities(self, states: Tensor, level: int) -> Tensor:
        logits = linear(states * self.scale, self.table.weight).log_softmax(-1)
        first = self.starts[level]
        return logits[..., first : first + self.level_sizes[level]]


def planted_codes(items: int, seed: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes int64[items, 4]: each level skewed to a centre of its prefix; the last counts items of the same three."""
    rng = np.random.default_rng(seed)
    draws = (rng.random((items, 3)) ** 1.5 * CODES).astype(np.int64)
    first = draws[:, 0]
    second = (draws[:, 1] + first * 37) % CODES
    third = (draws[:, 2] + first * 91 + second * 53) % CODES
    key = (first * CODES + second) * CODES + third
    order = key.argsort(kind="stable")
    new = np.r_[True, np.diff(key[order]) != 0]
    last = np.empty(items, dtype=np.int64)
    last[order] = np.arange(items) - np.maximum.accumulate(np.where(new, np.arange(items), 0))
    return np.stack([first, second, third, last], axis=1), (CODES, CODES, CODES, int(last.max()) + 1)


def catalogue_of(codes: np.ndarray, sizes: tuple[int, ...]) -> Catalogue:
    names = tuple(map(str, range(len(codes))))
    titles = tuple(f"item {name}" for name in names)  # A title that is the item's id counts as none.
    return Catalogue(item_ids=names, titles=titles, texts=titles, codes=codes, level_sizes=sizes)


def histories(items: int, batch: int, length: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    return make_batch(list(rng.integers(0, items, (batch, length))), [""] * batch)


def hugging_face(model: Tiger, settings: TigerSettings, dropout: float = 0.0) -> T5ForConditionalGeneration:
    """The same weights in transformers' T5."""
    config = T5Config(
        vocab_size=model.tokens.end + 1,
        d_model=settings.width,
        d_kv=settings.head_width,
        d_ff=settings.inner,
        num_layers=settings.encoder_layers,
        num_decoder_layers=settings.layers,
        num_heads=settings.heads,
        dropout_rate=dropout,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=None,
    )
    theirs = T5ForConditionalGeneration(config).eval()
    theirs.shared.weight.data.copy_(model.tokens.table.weight)
    for mine, stack in ((model.encoder, theirs.encoder), (model.decoder, theirs.decoder)):
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.copy_(mine.bias.table.weight)
        stack.final_layer_norm.weight.data.copy_(mine.norm.weight)
        for layer, block in zip(mine.layers, stack.block, strict=True):
            parts = [(layer.self_attention, block.layer[0].SelfAttention)]
            norms = [(layer.self_norm, block.layer[0].layer_norm), (layer.feed_norm, block.layer[-1].layer_norm)]
            if len(block.layer) == 3:
                parts.append((layer.cross_attention, block.layer[1].EncDecAttention))
                norms.append((layer.cross_norm, block.layer[1].layer_norm))
            for ours, other in parts:
                for name in ("q", "k", "v", "o"):
                    getattr(other, name).weight.data.copy_(getattr(ours, name).weight)
            for ours, other in norms:
                other.weight.data.copy_(ours.weight)
            block.layer[-1].DenseReluDense.wi.weight.data.copy_(layer.feed.into.weight)
            block.layer[-1].DenseReluDense.wo.weight.data.copy_(layer.feed.out.weight)
    return theirs


def allowed_tokens(codes: np.ndarray, offsets: list[int]) -> Callable[[int, Tensor], list[int]]:
    """A dict from prefix to the tokens that may follow; the decoder's start token is no part of the prefix."""
    tokens = (codes + np.array(offsets)).tolist()
    following: dict[tuple[int, ...], set[int]] = {}
    for row in tokens:
        for level in range(len(row)):
            following.setdefault(tuple(row[:level]), set()).add(row[level])
    lists = {prefix: list(tokens) for prefix, tokens in following.items()}
    return lambda _, sentence: lists[tuple(sentence[1:].tolist())]


def clocked(call: Callable[[], object], repeats: int) -> Clock:
    times = []
    for _ in range(repeats):
        started = now()
        call()
        times.append(now() - started)
    return times


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]) * scale
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], repeats: int, inner: int) -> tuple[Clock, Clock]:
    """Seconds of each, measured in turns: ours as the median of `inner` calls around each one of theirs."""
    ours()
    mine, other = [], []
    for _ in range(repeats):
        before = clocked(ours, inner)
        other.extend(clocked(theirs, 1))
        mine.append(statistics.median(before + clocked(ours, inner)))
    return mine, other


def products(
    pair: "Pair", tokens: int, size: int, beams: int, multiply: Callable[[Tensor, Tensor], Tensor] = functional.linear
) -> Callable[[], object]:
    """The products with weights that encode `size` rows of `tokens` and decode them, and nothing else."""
    settings, levels = pair.settings, len(pair.sizes)
    width, inner, heads = settings.width, settings.inner, settings.heads * settings.head_width
    feed = [(width, inner), (inner, width)]
    shapes = [(size * tokens, [(width, 3 * heads), (heads, width), *feed])] * settings.encoder_layers
    shapes += [(size * tokens, [(width, 2 * heads)])] * settings.layers
    step = [(width, 3 * heads), (heads, width), (width, heads), (heads, width), *feed]
    step = step * settings.layers + [(width, pair.model.tokens.end + 1)]
    shapes += [(size * (beams if level else 1), step) for level in range(levels)]
    work = [(torch.randn(rows, a), torch.randn(b, a)) for rows, pairs in shapes for a, b in pairs]
    return lambda: [multiply(x, weight) for x, weight in work]


class Pair:
    """A model and its counterpart over one catalogue."""

    def __init__(self, items: int, settings: TigerSettings, seed: int) -> None:
        torch.manual_seed(seed)
        self.codes, self.sizes = planted_codes(items, seed)
        self.settings = settings
        self.model = Tiger(settings, catalogue_of(self.codes, self.sizes)).eval()
        table = self.model.tokens
        self.model.tokens = AllTokens(self.sizes, settings.width)
        self.model.tokens.load_state_dict(table.state_dict())
        self.trie = self.model.trie()
        self.offsets = self.model.tokens.offsets.tolist()
        self.theirs = hugging_face(self.model, settings)
        self.allowed = allowed_tokens(self.codes, self.offsets)
        codes = self.codes.astype(np.int64)
        self.item_of = {tuple(row): item for item, row in enumerate(codes.tolist())}

    def ours(self, batch: Batch, beams: int, encoded: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        memory = self.model.decoder.memory(*(encoded or self.model.encode(batch)))
        return constrained_beam_search(self.model.stepper(memory), self.trie, len(batch), beams, beams)

    def compiled(self, batch: Batch, beams: int) -> tuple[Tensor, Tensor]:
        if self.model.settings.beams != beams or not self.model.settings.compile_search:
            self.model.settings = replace(self.settings, beams=beams, compile_search=True)
        return self.model.topk(batch, beams)

    def hf(self, batch: Batch, beams: int, states: Tensor | None = None, scores: bool = False) -> tuple[Tensor, Tensor]:
        tokens, mask = self.model.input_tokens(batch)
        config = GenerationConfig(
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=len(self.sizes),
            do_sample=False,
            early_stopping=False,
            length_penalty=0.0,
            eos_token_id=None,
            pad_token_id=0,
            decoder_start_token_id=0,
            return_dict_in_generate=True,
            output_scores=scores,
        )
        given = {"input_ids": tokens} if states is None else {"encoder_outputs": BaseModelOutput(states)}
        out = self.theirs.generate(
            **given,
            attention_mask=mask.long(),
            generation_config=config,
            prefix_allowed_tokens_fn=self.allowed,
        )
        sequences = out.sequences[:, 1:].view(len(batch), beams, -1)
        return sequences, out.sequences_scores.view(len(batch), beams) if scores else sequences.new_zeros(0)

    def differences(self, batch: Batch, beams: int) -> tuple[int, int, int]:
        """Positions compared, those with another item, and those of them that equal scores explain."""
        items, scores = self.ours(batch, beams)
        sequences, their_scores = self.hf(batch, beams, scores=True)
        codes = sequences - torch.tensor(self.offsets)
        theirs = torch.tensor([[self.item_of[tuple(row)] for row in rows] for rows in codes.tolist()])
        other = items != theirs
        close = (scores - their_scores).abs() <= 1e-5 * their_scores.abs().clamp_min(1.0)
        return items.numel(), int(other.sum()), int((other & close).sum())


@torch.no_grad()
def part_generate(given: argparse.Namespace, settings: TigerSettings) -> None:
    print("\n## generate: ours against transformers.generate, same weights")
    print(
        "items | beams | batch | HF rows | ms ours | ms HF | queries/s ours | HF | ratio | decoding ratio "
        "| ms compiled | its ratio | ms products | bound | % of the bound | % compiled | differ"
    )
    for items in given.items:
        pair = Pair(items, settings, given.seed)
        for beams in given.beams:
            for size in given.batches:
                compare(given, pair, beams, histories(items, size, given.length, given.seed + 1))
        del pair
        gc.collect()


def compare(given: argparse.Namespace, pair: Pair, beams: int, batch: Batch) -> None:
    """One line of the table."""
    size = len(batch)
    rows = min(size, given.hf_rows or size)
    part = batch.rows(0, rows)
    compared, other, explained = pair.differences(part, beams)
    inner, repeats = (5, given.repeats) if size == 1 else (1, max(2, given.repeats // 4))
    ours, theirs = in_turns(lambda: pair.ours(batch, beams), lambda: pair.hf(part, beams), repeats, inner)
    encoded, half = pair.model.encode(batch), pair.model.encode(part)[0]
    bare_ours, bare_theirs = in_turns(
        lambda: pair.ours(batch, beams, encoded), lambda: pair.hf(part, beams, half), repeats, inner
    )
    faster = "- | -"
    if size == 1:
        assert torch.equal(pair.compiled(batch, beams)[0], pair.ours(batch, beams)[0])
        mine, other_times = in_turns(lambda: pair.compiled(batch, beams), lambda: pair.hf(part, beams), repeats, inner)
        faster = f"{spread(mine, 1e3)} | {spread([b / a for a, b in zip(mine, other_times, strict=True)])}"
    bare_products = products(pair, encoded[0].shape[1], size, beams)
    least = clocked(bare_products, 4 * inner * repeats)
    bound = (statistics.median(theirs) / rows) / (statistics.median(least) / size)
    ratios = [(b / rows) / (a / size) for a, b in zip(ours, theirs, strict=True)]
    bare = [(b / rows) / (a / size) for a, b in zip(bare_ours, bare_theirs, strict=True)]
    print(
        f"{len(pair.codes)} | {beams} | {size} | {rows} | {spread(ours, 1e3)} | {spread(theirs, 1e3)} | "
        f"{size / statistics.median(ours):.1f} | {rows / statistics.median(theirs):.2f} | "
        f"{spread(ratios)} | {spread(bare)} | {faster} | {spread(least, 1e3)} | {bound:.1f} | "
        f"{other} of {compared}, {explained} explained",
        flush=True,
    )


@torch.no_grad()
def part_bound(given: argparse.Namespace, settings: TigerSettings) -> None:
    print("\n## bound: the products' time as a share of the search's")
    print("items | beams | batch | ms products | linear | ms ours | % of the bound | ms compiled | % of the bound")
    for items in given.items:
        pair = Pair(items, settings, given.seed)
        for beams in given.beams:
            for size in given.batches:
                shares(given, pair, beams, histories(items, size, given.length, given.seed + 1))


def shares(given: argparse.Namespace, pair: Pair, beams: int, batch: Batch) -> None:
    """One line of the table."""
    size, tokens = len(batch), pair.model.encode(batch)[0].shape[1]
    inner, repeats = (5, 2 * given.repeats) if size == 1 else (1, given.repeats)
    least, fast = (products(pair, tokens, size, beams, multiply) for multiply in (functional.linear, linear))
    searches = [lambda: pair.ours(batch, beams)] + ([lambda: pair.compiled(batch, beams)] if size == 1 else [])
    for call in (least, fast, *searches):
        call()
    times = [[statistics.median(clocked(call, inner)) for call in (least, fast, *searches)] for _ in range(repeats)]
    products_alone, by_linear, *found = zip(*times, strict=True)
    cells = [
        f"{spread(own, 1e3)} | {spread([100 * a / b for a, b in zip(products_alone, own, strict=True)])}"
        for own in found
    ]
    print(
        f"{len(pair.codes)} | {beams} | {size} | {spread(products_alone, 1e3)} | {spread(by_linear, 1e3)} | "
        f"{' | '.join(cells + ['- | -'] * (2 - len(cells)))}",
        flush=True,
    )


class Recorded:
    """The log-probabilities that a model gave, again."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.step, self.kept = step, []

    def __call__(self, codes: Tensor, parents: Tensor) -> Tensor:
        self.kept.append(self.step(codes, parents))
        return self.kept[-1]

    def again(self, codes: Tensor, parents: Tensor) -> Tensor:
        return self.kept[codes.shape[2]]


def free_search(step: Callable[[Tensor, Tensor], Tensor], sizes: tuple[int, ...], batch: int, beams: int) -> Tensor:
    """Beam search in which every code may follow."""
    scores = torch.zeros(batch, 1)
    codes = torch.empty(batch, 1, 0, dtype=torch.int64)
    parents = torch.zeros(batch, 1, dtype=torch.int64)
    for level, size in enumerate(sizes):
        totals = (step(codes, parents) + scores.unsqueeze(2)).flatten(1)
        scores, cells = _top(totals, min(beams, totals.shape[1]))
        parents = cells // size
        before = codes.gather(1, parents.unsqueeze(2).expand(-1, -1, level))
        codes = torch.cat([before, (cells % size).unsqueeze(2)], dim=2)
    return codes


@torch.no_grad()
def part_constraint(given: argparse.Namespace, settings: TigerSettings) -> None:
    items = max(given.items)
    print(f"\n## constraint: its share of decoding at {items} items (all levels together)")
    print(
        "beams | batch | ms decoding without trie | ms search alone, free | under the trie | share of the constraint "
        "| compiled, of decoding"
    )
    torch.manual_seed(given.seed)
    codes, sizes = planted_codes(items, given.seed)
    model = Tiger(settings, catalogue_of(codes, sizes)).eval()
    trie = model.trie()
    for beams in given.beams:
        for size in given.batches:
            batch = histories(items, size, given.length, given.seed + 1)
            states, mask = model.encode(batch)
            compiled = compiled_share(given.repeats * 3, model, states, mask, trie, beams) if size == 1 else "-"
            memory = model.decoder.memory(states, mask)
            share(given.repeats * (20 if size == 1 else 3), model, memory, trie, size, beams, compiled)


def compiled_share(repeats: int, model: Tiger, states: Tensor, mask: Tensor, trie: Trie, beams: int) -> str:
    """What the trie adds to decoding for one row in compiled code, in turns."""

    def free(states: Tensor, mask: Tensor) -> Tensor:
        return free_search(model.stepper(model.decoder.memory(states, mask)), trie.level_sizes, 1, beams)

    def bound(states: Tensor, mask: Tensor) -> Tensor:
        return constrained_beam_search(model.stepper(model.decoder.memory(states, mask)), trie, 1, beams, beams)[0]

    options = {"cpp_wrapper": True}
    runs = [torch.compile(search, dynamic=False, fullgraph=True, options=options) for search in (free, bound)]
    for run in runs:
        run(states, mask)
    extra = []
    for _ in range(repeats):
        without, under = (statistics.median(clocked(lambda run=run: run(states, mask), 20)) for run in runs)
        extra.append(under / without - 1)
    torch._dynamo.reset()
    return f"{spread(extra, 100)} %"


def share(repeats: int, model: Tiger, memory: Memory, trie: Trie, size: int, beams: int, compiled: str) -> None:
    """One line of the table."""
    sizes = trie.level_sizes
    recorded = Recorded(model.stepper(memory))
    constrained_beam_search(recorded, trie, size, beams, beams)
    whole, free, bound = [], [], []
    for _ in range(repeats):
        with torch.inference_mode():
            whole += clocked(lambda: free_search(model.stepper(memory), sizes, size, beams), 1)
            free += clocked(lambda: free_search(recorded.again, sizes, size, beams), 1)
        bound += clocked(lambda: constrained_beam_search(recorded.again, trie, size, beams, beams), 1)
    extra = [(b - f) / statistics.median(whole) for f, b in zip(free, bound, strict=True)]
    print(
        f"{beams} | {size} | {spread(whole, 1e3, 2)} | {spread(free, 1e3, 2)} | {spread(bound, 1e3, 2)} | "
        f"{spread(extra, 100)} % | {compiled}",
        flush=True,
    )


def part_build(given: argparse.Namespace) -> None:
    print(f"\n## build: trie of {given.build_items} items")
    drawn, sizes = planted_codes(given.build_items, given.seed)
    codes = torch.from_numpy(drawn)
    trie = Trie.from_codes(codes, sizes)
    repeats = max(3, given.repeats // 2)
    build = clocked(lambda: Trie.from_codes(codes, sizes), repeats)
    print(f"levels {sizes}, nodes {[len(level) for level in trie.symbols]}")
    tensors = (*trie.offsets, *trie.symbols, *trie.children, trie.leaf_items, trie.item_slots, trie.leaf_starts)
    held = sum(t.numel() * t.element_size() for t in tensors if t is not None)
    print(f"build {spread(build, 1, 2)} s, {held / 2**20:.0f} MiB")


@torch.no_grad()
def part_rules(given: argparse.Namespace, settings: TigerSettings) -> None:
    print("\n## rules: a share of the items may come")
    print("items | beams | batch | share allowed | ms without rule | ms under the rule | ratio | queries/s")
    for items in given.items:
        torch.manual_seed(given.seed)
        codes, sizes = planted_codes(items, given.seed)
        model = Tiger(settings, catalogue_of(codes, sizes)).eval()
        for beams, size in itertools.product(given.beams, given.batches):
            model.settings = replace(settings, beams=beams)
            batch = histories(items, size, given.length, given.seed + 1)
            for percent in given.allowed:
                allowed = torch.rand(size, items) < percent / 100
                found, _ = model.topk(batch, beams, None, allowed)
                assert (found >= 0).sum(dim=1).equal(allowed.sum(dim=1).clamp(max=beams))
                assert allowed.gather(1, found.clamp(min=0))[found >= 0].all()
                under, without = in_turns(
                    partial(model.topk, batch, beams, None, allowed),
                    partial(model.topk, batch, beams),
                    given.repeats,
                    1,
                )
                ratios = [a / b for a, b in zip(under, without, strict=True)]
                print(
                    f"{items} | {beams} | {size} | {percent:g} % | {spread(without, 1e3)} | {spread(under, 1e3)} | "
                    f"{spread(ratios, digits=2)} | {size / statistics.median(under):.1f}",
                    flush=True,
                )


def part_recall(given: argparse.Namespace, settings: TigerSettings) -> None:
    items = 2000
    print(f"\n## recall of the exact top 10 of {items} items")
    print("model | beams | recall@10 | the best item found")
    torch.manual_seed(given.seed)
    codes, sizes = planted_codes(items, given.seed)
    model = Tiger(replace(settings, dropout=0.0), catalogue_of(codes, sizes))
    by_code = codes[:, 0].argsort(kind="stable")
    rng = np.random.default_rng(given.seed)

    def walks(count: int) -> Batch:
        """The next item lies a few places further in the order of the first codes."""
        starts = rng.integers(0, items, (count, 1))
        steps = rng.integers(1, 40, (count, 11)).cumsum(axis=1)
        places = by_code[(starts + steps) % items]
        return make_batch(list(places[:, :-1]), [""] * count, places[:, -1])

    batch = walks(64)

    def report(name: str) -> None:
        model.eval()
        with torch.no_grad():
            exact = model.log_probabilities(batch).topk(10).indices
            for beams in (10, 20, 50):
                model.settings = replace(settings, beams=beams)
                found, _ = model.topk(batch, 10)
                recall = (found.unsqueeze(2) == exact.unsqueeze(1)).any(dim=2).float().mean()
                print(f"{name} | {beams} | {recall:.3f} | {(found == exact[:, :1]).any(dim=1).float().mean():.3f}")

    report("untrained")
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(given.train_steps):
        loss = model.loss(walks(64))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    report(f"after {given.train_steps} steps, loss {loss.item():.2f}" if given.train_steps else "again")


@torch.no_grad()
def part_sets(given: argparse.Namespace, settings: TigerSettings) -> None:
    print("\n## sets: SETRec, one pass for all slots, beside TIGER's beams")
    print("items | slots | beams | batch | ms SETRec | ms TIGER | ratio | first, ms")
    shape = {"width": settings.width, "heads": settings.heads, "inner": settings.inner}
    shape |= {"layers": settings.encoder_layers + settings.layers, "max_history": given.length}
    for items in given.items:
        torch.manual_seed(given.seed)
        catalogue = catalogue_of(*planted_codes(items, given.seed))
        tiger = Tiger(settings, catalogue).eval()
        vectors = {"collaborative_vectors.vector": torch.randn(items, 64).numpy()}
        for slots in given.slots:
            own = SETRecSettings(**shape, semantic_slots=slots)
            model = SETRec(own, replace(catalogue, vectors=vectors)).eval()
            model.texts.normal_()
            first = clocked(model.tokens, max(3, given.repeats // 4))
            for beams, size in itertools.product(given.beams, given.batches):
                tiger.settings = replace(settings, beams=beams)
                batch = histories(items, size, given.length, given.seed + 1)
                mine, theirs = in_turns(
                    partial(model.topk, batch, beams), partial(tiger.topk, batch, beams), given.repeats, 1
                )
                ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
                print(
                    f"{items} | {slots} | {beams} | {size} | {spread(mine, 1e3)} | {spread(theirs, 1e3)} | "
                    f"{spread(ratios)} | {spread(first, 1e3)}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["generate", "bound", "constraint", "build", "rules", "recall", "sets"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--items", nargs="+", type=int, default=[12_000, 1_000_000])
    parser.add_argument("--beams", nargs="+", type=int, default=[20, 50])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--length", type=int, default=20, help="items of a history")
    parser.add_argument("--hf-rows", type=int, default=0, help="rows that Hugging Face decodes at once; 0: the batch")
    parser.add_argument("--build-items", type=int, default=5_000_000)
    parser.add_argument("--allowed", nargs="+", type=float, default=[0.1, 1, 50], help="percent of the items")
    parser.add_argument("--slots", nargs="+", type=int, default=[4], help="semantic slots of SETRec")
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=12, help="pairs at batch 1; a quarter of them at others")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: seconds of all threads")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as torch chooses")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("width", "layers", "encoder_layers", "heads", "head_width", "inner"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(TigerSettings, name))
    given = parser.parse_args()
    if given.clock == "cpu":
        globals()["now"] = time.process_time
    if given.threads:
        torch.set_num_threads(given.threads)
    names = ("width", "layers", "encoder_layers", "heads", "head_width", "inner")
    settings = TigerSettings(**{name: getattr(given, name) for name in names}, beams=max(given.beams))
    print(f"{vars(given)}\ntorch {torch.__version__}, {torch.get_num_threads()} threads")
    if "generate" in given.parts:
        part_generate(given, settings)
    if "bound" in given.parts:
        part_bound(given, settings)
    if "constraint" in given.parts:
        part_constraint(given, settings)
    if "build" in given.parts:
        part_build(given)
    if "rules" in given.parts:
        part_rules(given, settings)
    if "recall" in given.parts:
        part_recall(given, settings)
    if "sets" in given.parts:
        part_sets(given, settings)


if __name__ == "__main__":
    main()
