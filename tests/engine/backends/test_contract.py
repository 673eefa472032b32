"""The contract of `engine.model`: one suite, run on every backend."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from engine.loader import Loaded, Options, load
from engine.model import BatchEntry, FloatArray, Model, ModelError, SavedState

N_CTX, N_SLOTS = 128, 2
PARIS = (Message("system", "You are a helpful assistant."), Message("user", "What is the capital of France?"))
CATS = (Message("system", "You are a helpful assistant."), Message("user", "Name an animal that says meow."))


def script(message: bytes) -> bytes:
    return b"It is Paris." if b"France" in message else b"A cat."


def scripted_model(_: Path, __: Path) -> Loaded:
    vocabulary = scripted.vocabulary()
    model = ScriptedModel(script, n_ctx=N_CTX, n_slots=N_SLOTS, batched=True)
    return Loaded(model, vocabulary, ChatTemplate(scripted.TEMPLATE, vocabulary), fingerprint="")


def ctransformers_model(smollm2: Path, cache: Path) -> Loaded:
    return load(
        smollm2, Options(n_slots=N_SLOTS, n_ctx=N_CTX, threads=1, threads_batch=1, engine="ctransformers"), cache
    )


def llamacpp_model(smollm2: Path, cache: Path) -> Loaded:
    return load(smollm2, Options(n_slots=N_SLOTS, n_ctx=N_CTX, threads=1, threads_batch=1, engine="llamacpp"), cache)


BACKENDS = {"scripted": scripted_model, "ctransformers": ctransformers_model, "llamacpp": llamacpp_model}


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request: pytest.FixtureRequest, smollm2: Path, cache: Path) -> Iterator[Loaded]:
    loaded = BACKENDS[request.param](smollm2, cache)
    yield loaded
    loaded.model.close()


@pytest.fixture
def model(loaded: Loaded) -> Model:
    return loaded.model


def evaluate(model: Model, tokens: Sequence[int], slot: int = 0, position: int = 0, entry: int = N_CTX) -> FloatArray:
    """Return a copy of the logits after `tokens`."""
    for start in range(0, len(tokens), entry):
        part = tokens[start : start + entry]
        model.decode([BatchEntry(slot, position + start, part, logits=start + entry >= len(tokens))])
    return model.logits(slot).copy()


def answer(loaded: Loaded, messages: Sequence[Message], *, entry: int = N_CTX, n: int = 12) -> bytes:
    """Return greedily chosen tokens, fed back one by one."""
    prompt = loaded.template.prompt(messages)
    logits, answered = evaluate(loaded.model, prompt, entry=entry), list[int]()
    while len(answered) < n and (token := int(logits.argmax())) not in loaded.vocabulary.end_tokens:
        logits = evaluate(loaded.model, [token], position=len(prompt) + len(answered))
        answered.append(token)
    return b"".join(map(loaded.vocabulary.bytes_of, answered))


@pytest.fixture(scope="module")
def answer_of_one_thread(loaded: Loaded) -> bytes:
    loaded.model.use_threads(1, 1)
    return answer(loaded, PARIS, n=4)


@pytest.fixture(scope="module")
def paris(loaded: Loaded) -> FloatArray:
    """Return the logits after the prompt PARIS."""
    return evaluate(loaded.model, loaded.template.prompt(PARIS))


@pytest.mark.parametrize(("decode", "batch"), [(1, 2), (2, 1)])
def test_use_threads_leaves_the_logits_unchanged(
    loaded: Loaded, answer_of_one_thread: bytes, decode: int, batch: int
) -> None:
    loaded.model.use_threads(decode, batch)
    answered = answer(loaded, PARIS, n=4)
    loaded.model.use_threads(1, 1)
    assert answered == answer_of_one_thread


def test_info_states_the_models_properties(loaded: Loaded) -> None:
    info = loaded.model.info
    assert (info.n_ctx, info.n_slots, info.n_vocab) == (N_CTX, N_SLOTS, loaded.vocabulary.size)
    assert info.engine
    assert info.batched or not info.multi_row_logits, "guesses only pay where several tokens cost less together"


@pytest.mark.parametrize("slot", range(N_SLOTS))
def test_logits_are_one_float32_a_token(model: Model, slot: int) -> None:
    model.decode([BatchEntry(slot, 0, [5, 6, 7], logits=True)])
    logits = model.logits(slot)
    assert logits.shape == (model.info.n_vocab,)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_logits_are_writable_without_affecting_the_next_decode(model: Model) -> None:
    untouched = evaluate(model, [5, 6, 7])
    view = model.logits(0)
    view[:] = -np.inf
    view[3] = 1
    assert int(model.logits(0).argmax()) == 3
    assert np.allclose(evaluate(model, [7], position=2), untouched, atol=1e-3)


def test_decode_takes_an_entry_for_each_slot(model: Model) -> None:
    alone = [evaluate(model, tokens, slot=0) for tokens in ([5, 6, 7], [9, 8])]
    model.decode([BatchEntry(0, 0, [5, 6, 7], logits=True), BatchEntry(1, 0, [9, 8], logits=True)])
    assert np.allclose(model.logits(0), alone[0], atol=1e-3)
    assert np.allclose(model.logits(1), alone[1], atol=1e-3)


@pytest.mark.parametrize("entry", [16, N_CTX])
def test_decode_of_a_prompt_in_parts_equals_the_whole(loaded: Loaded, entry: int) -> None:
    assert b"Paris" in answer(loaded, PARIS, entry=entry)


def test_decode_of_another_question_gives_another_answer(loaded: Loaded) -> None:
    assert b"Paris" not in answer(loaded, CATS)


def test_decode_replaces_the_tokens_behind_its_position(loaded: Loaded) -> None:
    first, second = map(loaded.template.prompt, (PARIS, CATS))
    common = next(n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    fresh = evaluate(loaded.model, second, slot=1)
    evaluate(loaded.model, first)
    evaluate(loaded.model, [9] * 40, position=len(first))
    replaced = evaluate(loaded.model, second[common:], position=common)
    assert 0 < common < len(second)
    assert replaced.argmax() == fresh.argmax()
    assert np.abs(replaced - fresh).max() < 1


def test_decode_in_one_slot_leaves_others_unchanged(loaded: Loaded, paris: FloatArray) -> None:
    first, second = map(loaded.template.prompt, (PARIS, CATS))
    evaluate(loaded.model, first[:-1], slot=0)
    evaluate(loaded.model, second, slot=1)
    after = evaluate(loaded.model, first[-1:], slot=0, position=len(first) - 1)
    assert after.argmax() == paris.argmax()
    assert np.abs(after - paris).max() < 1


def test_decode_fills_a_slot_to_the_last_position(model: Model) -> None:
    evaluate(model, [5] * N_CTX, entry=32)
    assert np.isfinite(model.logits(0)).all()


def test_decode_outside_the_slot_raises_and_leaves_it_usable(model: Model) -> None:
    before = evaluate(model, [5] * N_CTX, entry=32)
    for position, n in ((0, N_CTX + 1), (N_CTX - 1, 2), (N_CTX, 1)):
        with pytest.raises(ModelError, match=f"^position {position} \\+ {n} tokens? is outside the slot$"):
            model.decode([BatchEntry(0, position, [5] * n, logits=True)])
        assert np.allclose(evaluate(model, [5], position=N_CTX - 1), before, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_are_independent_and_close_separately(backend: str, smollm2: Path, cache: Path) -> None:
    one, other = (BACKENDS[backend](smollm2, cache) for _ in range(2))
    tokens = evaluate(one.model, [5, 6, 7])
    one.model.close()
    assert np.allclose(evaluate(other.model, [5, 6, 7]), tokens, atol=1e-3)
    other.model.close()


def test_copy_prefix_equals_an_evaluated_prefix(loaded: Loaded) -> None:
    if not loaded.model.info.copies_prefixes:
        pytest.skip(f"{loaded.model.info.engine} cannot share")
    first, second = map(loaded.template.prompt, (PARIS, CATS))
    alone = evaluate(loaded.model, first, slot=0)
    evaluate(loaded.model, second, slot=1)
    loaded.model.copy_prefix(0, 1, len(first) - 2)
    copied = evaluate(loaded.model, first[-2:], slot=1, position=len(first) - 2)
    assert copied.argmax() == alone.argmax()
    assert np.abs(copied - alone).max() < 1


@pytest.fixture(scope="module")
def saving(loaded: Loaded) -> Loaded:
    if not loaded.model.info.saves_state:
        pytest.skip(f"{loaded.model.info.engine} cannot save")
    return loaded


def split_at(model: Model, state: SavedState, cuts: Sequence[int]) -> list[SavedState]:
    """Return a state in parts that end at `cuts`."""
    parts, start = list[SavedState](), 0
    for cut in cuts:
        part, state = model.split(state, cut - start)
        parts.append(part)
        start = cut
    return [*parts, state]


@pytest.mark.parametrize("cuts", [(), (1,), (9,), (3, 4, 20)])
def test_restore_into_any_slot_continues_the_saved_one(saving: Loaded, paris: FloatArray, cuts: Sequence[int]) -> None:
    model, prompt = saving.model, saving.template.prompt(PARIS)
    evaluate(model, prompt[:-1], slot=0)
    state = model.save(0, 0, len(prompt) - 1)
    evaluate(model, saving.template.prompt(CATS), slot=0)
    model.restore(1, split_at(model, state, cuts), len(prompt) - 1)
    restored = evaluate(model, prompt[-1:], slot=1, position=len(prompt) - 1)
    assert np.allclose(restored, paris, atol=1e-2)


def test_save_of_a_range_is_the_right_part_of_the_whole(saving: Loaded) -> None:
    model, prompt = saving.model, saving.template.prompt(PARIS)
    evaluate(model, prompt, slot=1)
    expected = model.split(model.save(1, 0, len(prompt)), 7)[1]
    assert model.save(1, 7, len(prompt)) == expected


def test_save_drops_the_tokens_behind_the_range(saving: Loaded, paris: FloatArray) -> None:
    """Rejected draft tokens are in the slot until the next step."""
    model, prompt = saving.model, saving.template.prompt(PARIS)
    evaluate(model, [*prompt[:-1], 5, 6], slot=0)
    model.restore(1, [model.save(0, 0, len(prompt) - 1)], len(prompt) - 1)
    for slot in range(2):
        last = evaluate(model, prompt[-1:], slot=slot, position=len(prompt) - 1)
        assert np.allclose(last, paris, atol=1e-2)


def test_restore_of_a_prefix_continues_another_prompt(saving: Loaded) -> None:
    """A state may be cut anywhere, as the last one is here."""
    model, first, second = saving.model, *map(saving.template.prompt, (PARIS, CATS))
    common = next(n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    alone = evaluate(model, second, slot=1)
    evaluate(model, first, slot=0)
    model.restore(1, split_at(model, model.save(0, 0, len(first)), (5,)), common)
    continued = evaluate(model, second[common:], slot=1, position=common)
    assert np.allclose(continued, alone, atol=1e-2)


@pytest.fixture(scope="module")
def state(saving: Loaded) -> SavedState:
    """Return the state of 30 tokens."""
    evaluate(saving.model, range(5, 35))
    return saving.model.save(0, 0, 30)


@pytest.mark.parametrize(
    ("order", "n"), [((1, 0), 20), ((0, 2), 20), ((1, 2), 20), ((0, 0, 1), 20), ((0, 1), 1), ((0, 1), 21), ((0,), 21)]
)
def test_restore_of_states_that_do_not_fit_raises_and_empties_the_slot(
    saving: Loaded, state: SavedState, order: tuple[int, ...], n: int
) -> None:
    model = saving.model
    parts = split_at(model, state, (10, 20))
    with pytest.raises(ModelError):
        model.restore(1, [parts[i] for i in order], n)
    with pytest.raises(ModelError, match="outside the slot"):
        model.decode([BatchEntry(1, 1, [5], logits=True)])


def test_restore_of_a_damaged_state_raises_and_leaves_the_slot_usable(saving: Loaded) -> None:
    model, prompt = saving.model, saving.template.prompt(PARIS)
    alone = evaluate(model, prompt, slot=0)
    state = model.save(0, 0, len(prompt))
    for rows in (b"", state.rows[: len(state.rows) // 2], state.rows[:-1], bytes(state.rows) + b"\0"):
        with pytest.raises(ModelError):
            model.restore(1, [SavedState(rows, state.tail)], len(prompt))
    assert evaluate(model, prompt, slot=1).argmax() == alone.argmax()


@pytest.mark.parametrize("at", [-1, 0, 30, 31])
def test_split_outside_a_state_raises(saving: Loaded, state: SavedState, at: int) -> None:
    with pytest.raises(ModelError):
        saving.model.split(state, at)


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (4, 4), (5, 4), (0, 5), (0, 0)])
def test_save_outside_a_slot_raises(saving: Loaded, start: int, end: int) -> None:
    evaluate(saving.model, range(5, 9), slot=0)
    with pytest.raises(ModelError):
        saving.model.save(0, start, end)


def test_logits_rows_belong_to_the_last_tokens(loaded: Loaded) -> None:
    if not loaded.model.info.multi_row_logits:
        pytest.skip(f"{loaded.model.info.engine} has logits after the last token only")
    prompt = loaded.template.prompt(PARIS)
    expected = [
        int(evaluate(loaded.model, prompt[:n]).argmax()) for n in (len(prompt) - 2, len(prompt) - 1, len(prompt))
    ]
    loaded.model.decode([BatchEntry(0, 0, prompt, logits=3)])
    assert [int(loaded.model.logits(0, row).argmax()) for row in range(3)] == expected
