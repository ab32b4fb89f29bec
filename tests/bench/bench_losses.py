"""What does a softmax over many items cost, forward and backward, beside autograd's?

    python -m tests.bench.bench_losses --rows 900 --items 4096 12000 --widths 64 256

The loss of `ray_jobs.objectives.next_item` on random states, against the same loss written with torch's own functions.
Both take turns on the same tensors. Times are medians in milliseconds of the processor, in brackets the middle half;
the gradients are compared, too.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ray_jobs.objectives import next_item
from ray_jobs.recipes.sequential.settings import SequentialSettings
from tests.bench.bench_decoding import spread


def plain(states: Tensor, table: Tensor, labels: Tensor, drawn: Tensor | None) -> Tensor:
    if drawn is None:
        return functional.cross_entropy(states @ table.T, labels)
    positive = (states * table[labels]).sum(-1)
    negatives = (states @ table[drawn].T).masked_fill(drawn == labels[:, None], float("-inf"))
    return (torch.cat([positive[:, None], negatives], dim=1).logsumexp(dim=1) - positive).mean()


def ours(states: Tensor, table: Tensor, labels: Tensor, drawn: Tensor | None) -> Tensor:
    settings = SequentialSettings(loss="ce" if drawn is None else "sampled_softmax")
    return next_item._mean_loss(settings, states, table, labels, drawn, None)


def clocked(loss: Callable[..., Tensor], *given: Tensor | None) -> tuple[float, list[Tensor]]:
    states, table = (tensor.detach().requires_grad_() for tensor in given[:2] if tensor is not None)
    started = time.process_time()
    loss(states, table, *given[2:]).backward()
    taken = time.process_time() - started
    return taken, [tensor.grad for tensor in (states, table) if tensor.grad is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=900, help="positions of a batch")
    parser.add_argument("--items", type=int, nargs="+", default=[4096, 12_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print("loss | items | width | plain | ours | times as fast | largest difference of a gradient, relative")
    for items, width, sampled in itertools.product(given.items, given.widths, (True, False)):
        states, table = torch.randn(given.rows, width), torch.randn(3 * items if sampled else items, width) * 0.1
        labels = torch.randint(len(table), (given.rows,))
        drawn = torch.randint(len(table), (items,)) if sampled else None
        tensors = (states, table, labels, drawn)
        _, wanted = clocked(plain, *tensors)
        _, found = clocked(ours, *tensors)
        apart = max(
            float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True)
        )
        times = [(clocked(plain, *tensors)[0], clocked(ours, *tensors)[0]) for _ in range(given.repeats)]
        theirs, mine = zip(*times, strict=True)
        ratios = [one / other for one, other in times]
        name = "sampled" if sampled else "full"
        print(
            f"{name} | {items} | {width} | {spread(theirs, 1e3)} | {spread(mine, 1e3)} | {spread(ratios, digits=2)} | "
            f"{apart:.1e}"
        )


if __name__ == "__main__":
    main()
