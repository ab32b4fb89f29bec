from dataclasses import replace

import numpy as np
import pytest
import torch
from odd_one_out import SMALL, TITLES, family_histories, small_writer

from infra.errors import SettingError
from ray_jobs.data.histories import Histories
from ray_jobs.denoiser.fitting import example_losses
from ray_jobs.denoiser.tuning_data import NO_LOSS, collate, quotable, step_rows
from ray_jobs.denoiser.windows import Window, draw, is_heldout, split_windows, window_places
from schemas.errors import DataError


def _histories(*items, valid=None):
    lengths = np.array([len(history) for history in items])
    return Histories(
        user_ids=tuple(f"U{user}" for user in range(len(items))),
        items=tuple(np.array(history) for history in items),
        valid_position=np.array(valid) if valid else lengths - 2,
        test_position=lengths - 1,
        preferences=tuple({} for _ in items),
    )


def test_windows_are_every_stretch_of_the_training_positions():
    histories = _histories(range(15), range(6), range(5), valid=[13, 4, 3])
    settings = replace(SMALL, window=11)
    assert window_places(histories, [0, 1, 2], settings) == [(0, 0, 11), (0, 1, 12), (0, 2, 13), (1, 0, 4)]


def test_a_window_is_what_it_was():
    histories = _histories([3, 1, 4, 5, 9, 2], [8, 9, 7, 3, 6, 0], valid=[4, 4])
    places = window_places(histories, [0, 1], SMALL)
    assert draw(histories, places, 3, seed=0) == [
        Window(user=0, start=0, items=(3, 1, 4, 8), position=3, original=5),
        Window(user=1, start=0, items=(8, 9, 5, 3), position=2, original=7),
        Window(user=0, start=0, items=(3, 7, 4, 5), position=1, original=1),
    ]


def test_one_position_differs_and_nothing_held_out_is_shown_or_swapped_in():
    histories = family_histories(120)
    split = split_windows(histories, SMALL)
    assert len(split.tuning) == SMALL.windows
    training = {int(item) for user in range(len(histories)) for item in histories.training_items(user)}
    for window in (*split.tuning, *split.heldout):
        real = histories.training_items(window.user)
        assert list(window.clean) == real[window.start : window.start + len(window.items)].tolist()
        assert [a != b for a, b in zip(window.items, window.clean, strict=True)].count(True) == 1
        assert window.items[window.position] in training - set(real.tolist())
    assert split == split_windows(histories, SMALL)
    assert split.tuning != split_windows(histories, replace(SMALL, seed=1)).tuning


def test_users_are_on_one_side_and_stay_there_when_others_come():
    few, many = family_histories(80), family_histories(160)
    split = split_windows(few, SMALL)
    assert not {window.user for window in split.tuning} & {window.user for window in split.heldout}
    assert {window.user for window in split.tuning} <= set(split.tuning_users)
    assert len(split.heldout) == len({(window.user, window.start) for window in split.heldout})
    kept = [user for user in range(80) if is_heldout(few.user_ids[user], SMALL)]
    assert kept == [user for user in range(80) if is_heldout(many.user_ids[user], SMALL)]
    assert 0 < len(kept) < 40


def test_what_makes_no_windows_is_said():
    with pytest.raises(DataError, match=r"lower tune_denoiser\.shortest"):
        split_windows(_histories([1, 2, 3], [4, 5, 6]), SMALL)
    with pytest.raises(DataError, match="user number 0 has every item"):
        draw(_histories([1, 2, 3, 4, 5, 6], valid=[4]), [(0, 0, 4)], 1, seed=0)


WINDOW = Window(user=0, start=0, items=(0, 11, 2, 3), position=1, original=1)
PROMPT = (
    "<s>Below are titles that a customer chose, oldest first. Find the items that break the dominant interest, then "
    "propose replacements.\nTitles: 'Guiaba', 'Ketebe', 'Guiibi', 'Guiobo'\nNoise Items: '"
)
ANSWER = "Ketebe'\nSuggested Replacements: 'Guiebe'</s>"


def test_prompt_and_answer_are_these_and_the_loss_counts_these_tokens():
    writer = small_writer()
    example = writer.tuning_examples([WINDOW])[0]
    decode = writer.tokenizer.decode
    assert decode(example.ids) == PROMPT + ANSWER
    assert decode(example.ids[: example.loss_from]) == PROMPT
    both = small_writer(replace(SMALL, loss_on="prompt+answer")).tuning_examples([WINDOW])[0]
    assert both.ids == example.ids
    assert both.loss_from == 1
    longer = replace(WINDOW, items=(*WINDOW.items, 4))
    batch = collate(writer.tuning_examples([WINDOW, longer]), writer.pad)
    counted = [[int(token) for token in row if token != NO_LOSS] for row in batch.labels]
    assert [decode(row) for row in counted] == [ANSWER, ANSWER]
    assert (batch.labels != NO_LOSS).logical_and(batch.mask == 0).sum() == 0
    assert batch.mask.sum(1).tolist() == [len(example.ids), batch.ids.shape[1]]


def test_only_tokens_that_count_and_all_of_them_change_the_loss():
    example = small_writer().tuning_examples([WINDOW])[0]
    batch = collate([example], 0)
    logits = torch.zeros(1, len(example.ids), 900, requires_grad=True)
    example_losses(logits, batch.labels).sum().backward()
    touched = logits.grad.abs().sum(2)[0] > 0
    expected = torch.arange(len(example.ids))
    assert torch.equal(touched, (expected >= example.loss_from - 1) & (expected < len(example.ids) - 1))


def test_the_base_learns_from_real_items_only():
    writer = small_writer()
    windows = split_windows(family_histories(40), replace(SMALL, windows=50)).tuning
    for window, example in zip(windows, writer.base_examples(windows), strict=True):
        text = writer.tokenizer.decode(example.ids)
        listed = text.split("Titles: '")[1].split("'\nNoise")[0].split("', '")
        named = text.split("Noise Items: '")[1].split("'\nSuggested")[0].split("', '")
        assert set(listed) <= {TITLES[item] for item in window.clean}
        assert sorted(named) == sorted(listed)
        assert TITLES[window.items[window.position]] not in listed


def test_titles_are_quotable_and_windows_that_are_too_long_are_refused():
    assert quotable("  The 'Best'  of\nBach ", 3) == "The \u2019Best\u2019 of"
    with pytest.raises(SettingError, match=r"lower tune_denoiser\.max_title_words or tune_denoiser\.window"):
        small_writer(replace(SMALL, max_tokens=40)).tuning_examples([WINDOW])
    with pytest.raises(SettingError, match=r"tune_denoiser\.heldout_share is 1"):
        replace(SMALL, heldout_share=1)


def test_every_worker_has_its_share_of_every_step():
    whole = list(step_rows(103, 16, seed=3))
    shares = [list(step_rows(103, 16, seed=3, rank=rank, world=2)) for rank in range(2)]
    assert len(whole) == len(shares[0]) == len(shares[1]) == 7
    assert sorted(row for step in whole for row in step) == list(range(103))
    for step, first, second in zip(whole[:-1], *(share[:-1] for share in shares), strict=True):
        assert sorted(first + second) == sorted(step)
    assert len(shares[0][-1]) == len(shares[1][-1]) == 3
