"""How many chunks a consumer claims at once, by how fast its model was."""

import pytest

from consumers.batching import LEAST, MOST, Batching


@pytest.mark.parametrize(
    ("texts", "seconds", "size"),
    [
        (256, 0.0, MOST),
        (256, 0.05, MOST),
        (256, 0.2, 640),
        (256, 2.5, LEAST),
        (1024, 10.0, LEAST),
    ],
)
def test_a_range_holds_what_the_model_embeds_in_half_a_second(texts: int, seconds: float, size: int) -> None:
    batching = Batching()
    assert batching.size == LEAST
    batching.took(texts, seconds)
    assert batching.size == size


def test_a_few_texts_say_nothing_about_a_models_speed() -> None:
    batching = Batching()
    batching.took(3, 0.0)
    assert batching.size == LEAST


def test_a_size_that_is_given_stays() -> None:
    batching = Batching(40)
    batching.took(256, 0.0)
    assert batching.size == 40
