import asyncio
import threading

from ray_jobs.serving.batching import Batcher


def test_a_batch_holds_everything_that_came_while_the_model_was_busy():
    started, go, sizes = threading.Event(), threading.Event(), []

    def run(jobs):
        sizes.append(len(jobs))
        started.set()
        assert go.wait(20)
        return [f"answer to {job}" for job in jobs]

    async def scenario():
        batcher = Batcher(8, 0.0, run)
        tasks = [asyncio.create_task(batcher.answer(0))]
        assert await asyncio.to_thread(started.wait, 20)
        for job in range(1, 11):
            tasks.append(asyncio.create_task(batcher.answer(job)))
            await asyncio.sleep(0.002)
        go.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(scenario()) == [f"answer to {job}" for job in range(11)]
    assert sizes == [1, 8, 2]


def test_a_batch_that_is_not_full_waits_for_more_jobs():
    sizes = []

    async def scenario():
        batcher = Batcher(8, 0.2, lambda jobs: sizes.append(len(jobs)) or jobs)
        first = asyncio.create_task(batcher.answer(0))
        await asyncio.sleep(0.02)
        return await asyncio.gather(first, batcher.answer(1))

    assert asyncio.run(scenario()) == [0, 1]
    assert sizes == [2]


def test_jobs_of_callers_who_left_are_not_answered_and_a_fault_reaches_its_batch_only():
    seen = []

    def run(jobs):
        seen.extend(jobs)
        return [1 / job for job in jobs]

    async def scenario():
        batcher = Batcher(1, 0.0, run)
        gone, wrong, right = (asyncio.create_task(batcher.answer(job)) for job in (7, 0, 2))
        await asyncio.sleep(0)
        gone.cancel()
        return await wrong, await right

    wrong, right = asyncio.run(scenario())
    assert isinstance(wrong, ZeroDivisionError)
    assert right == 0.5
    assert seen == [0, 2]


def test_lists_have_a_share_of_a_batch_and_all_of_it_while_nothing_else_waits():
    batches = []

    async def scenario():
        batcher = Batcher(4, 0.0, lambda jobs: batches.append(list(jobs)) or jobs)
        listed = [asyncio.create_task(batcher.answer(f"list {n}", listed=True)) for n in range(8)]
        single = [asyncio.create_task(batcher.answer(n)) for n in range(3)]
        await asyncio.gather(*listed, *single)

    asyncio.run(scenario())
    assert batches[0] == [0, 1, "list 0", "list 1"]
    assert batches[1] == [2, "list 2", "list 3"]
    assert batches[2] == ["list 4", "list 5", "list 6", "list 7"]
