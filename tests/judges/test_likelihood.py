"""Log-likelihoods of responses, against the loss of raw Hugging Face models, one response at a time."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import tokenizers
import torch
import transformers

from arm_lens import load_model
from arm_lens.engine.tokens import PromptTooLongError
from arm_lens.judges.likelihood import LikelihoodJudge
from arm_lens.judges.options import QuestionOptions
from arm_lens.judges.template import JudgeTemplate
from arm_lens.preferences import PreferencePair

TEMPLATE = JudgeTemplate(header="", scalar="request: {prompt} reply: {response} end", cue=" verdict:", chat=False)
PROMPTS = ["garden", "river bridge", "tell me about the mill {response} now", "mill"]
RESPONSES = ["it is warm and bright", "cold", "the mill is noisy , really noisy !", "warm {prompt}"]
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}<bos>request: {{ m.content }} {% else %}"
    "reply: {{ m.content }}<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}reply:{% endif %}"
)


def raw_log_likelihoods(folder, contexts, responses):
    """Minus the loss of the response's tokens, summed: one unpadded response at a time, from Hugging Face alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for context, response in zip(contexts, responses, strict=True):
        labels = torch.tensor([[-100] * len(context) + response])
        with torch.no_grad():
            found.append(-model(torch.tensor([context + response]), labels=labels).loss * len(response))
    return torch.stack(found)


def tokens_of(tokenizer, texts, bos=()):
    return [[*bos, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]


@pytest.fixture
def expected(folder_of, tokenizer):
    """expected(family): the summed log-likelihood of each response, and its number of tokens."""

    def compute(family):
        contexts = tokens_of(tokenizer, [f"request: {prompt} reply:" for prompt in PROMPTS], [tokenizer.bos_token_id])
        responses = tokens_of(tokenizer, RESPONSES)
        counts = torch.tensor([float(len(one)) for one in responses])
        return raw_log_likelihoods(folder_of(family), contexts, responses), counts

    return compute


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_likelihoods_are_the_losses_of_the_raw_model(model_of, expected, family, model_class):
    model = model_of(family, model_class)
    total, counts = expected(family)
    for batch_size in (1, 3, 16):
        judge = LikelihoodJudge(model, question=QuestionOptions(template=TEMPLATE, batch_size=batch_size))
        torch.testing.assert_close(judge.score(PROMPTS, RESPONSES), total / counts, atol=1e-4, rtol=1e-5)
    summed = LikelihoodJudge(model, question=QuestionOptions(template=TEMPLATE), mean=False)
    torch.testing.assert_close(summed.score(PROMPTS, RESPONSES), total, atol=1e-3, rtol=1e-5)
    preferred = summed.prefer(PROMPTS[0], RESPONSES[0], RESPONSES[1])
    assert preferred.preferred == "b"  # one token against five


def test_a_chat_model_reads_the_prompt_through_its_chat_template(folder_of, tokenizer, model_class):
    model = load_model(folder_of("llama"), model_class=model_class, tokenizer=copy.deepcopy(tokenizer))
    model.tokenizer.chat_template = CHAT
    talk = PreferencePair(
        [
            {"role": "user", "content": "garden"},
            {"role": "assistant", "content": "warm"},
            {"role": "user", "content": "mill"},
        ],
        [{"role": "assistant", "content": "cold river"}],
        "no",
    )
    texts = ["<bos>request: river bridge reply:", "<bos>request: garden reply: warm<eos><bos>request: mill reply:"]
    contexts = tokens_of(tokenizer, texts)
    assert contexts[0][0] == tokenizer.bos_token_id and contexts[0][1] != tokenizer.bos_token_id
    responses = tokens_of(tokenizer, [RESPONSES[0], "cold river"])
    total = raw_log_likelihoods(folder_of("llama"), contexts, responses)
    found = LikelihoodJudge(model, mean=False).score(["river bridge", talk.prompt], [RESPONSES[0], talk.chosen])
    torch.testing.assert_close(found, total, atol=1e-3, rtol=1e-5)


def test_the_log_ratio_to_the_model_itself_is_zero(model_of, model_class):
    model = model_of("llama", model_class)
    assert (
        LikelihoodJudge(model, reference=model, question=QuestionOptions(template=TEMPLATE))
        .score(PROMPTS, RESPONSES)
        .tolist()
        == [0.0] * 4
    )


def test_the_log_ratio_is_the_difference_of_the_log_likelihoods(model_of, expected, model_class):
    pair = model_of("llama", model_class), model_of("gpt2", model_class)
    (ours, counts), (theirs, _) = expected("llama"), expected("gpt2")
    judge = LikelihoodJudge(pair[0], reference=pair[1], question=QuestionOptions(template=TEMPLATE), beta=0.1)
    torch.testing.assert_close(judge.score(PROMPTS, RESPONSES), 0.1 * (ours - theirs), atol=1e-3, rtol=1e-4)
    judge = LikelihoodJudge(pair[0], reference=pair[1], question=QuestionOptions(template=TEMPLATE), mean=True)
    torch.testing.assert_close(judge.score(PROMPTS, RESPONSES), (ours - theirs) / counts, atol=1e-3, rtol=1e-4)


def test_what_does_not_fit_is_named(model_of, tokenizer):
    judge = LikelihoodJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE))
    context = 4  # <bos> request: mill reply:
    fits = " ".join(["warm"] * (512 - context))
    assert torch.isfinite(judge.score(["mill"], [fits])).all()
    with pytest.raises(PromptTooLongError, match="example 1: prompt and response have 513 tokens, the context 512"):
        judge.score(["mill", "mill"], ["warm", fits + " warm"])
    with pytest.raises(PromptTooLongError, match="example 2"):
        judge.score(["mill", "mill", fits], ["warm", "warm", "warm warm"])


def test_the_context_of_the_reference_counts_too(model_of, fresh, tokenizer):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    short = fresh(transformers.LlamaConfig(**shape, vocab_size=len(tokenizer), max_position_embeddings=8))
    judge = LikelihoodJudge(model_of("llama"), reference=short, question=QuestionOptions(template=TEMPLATE))
    assert torch.isfinite(judge.score(["mill"], ["warm " * 4])).all()
    with pytest.raises(PromptTooLongError, match="example 0: prompt and response have 9 tokens, the context 8"):
        judge.score(["mill"], ["warm " * 5])


def test_a_response_needs_tokens_and_something_to_follow_from(model_of):
    with pytest.raises(ValueError, match="example 1: the response has no tokens"):
        LikelihoodJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE)).score(
            ["mill", "mill"], ["warm", "  "]
        )
    with pytest.raises(ValueError, match="2 prompts for 1 responses"):
        LikelihoodJudge(model_of("llama"), question=QuestionOptions(template=TEMPLATE)).score(
            ["mill", "mill"], ["warm"]
        )
    bare = JudgeTemplate(scalar="{response} {prompt}", chat=False)
    assert torch.isfinite(
        LikelihoodJudge(model_of("llama"), question=QuestionOptions(template=bare)).score(["mill"], ["warm"])
    ).all()
    with pytest.raises(ValueError, match="example 0: nothing stands before"):  # Qwen2 gets no <bos>
        LikelihoodJudge(model_of("qwen2"), question=QuestionOptions(template=bare)).score(["mill"], ["warm"])


def test_models_with_different_tokens_are_refused(model_of, folder_of, tokenizer, tmp_path):
    longer = copy.deepcopy(tokenizer)
    assert longer.add_tokens(["unheard-of"]) == 1
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words["mill"], words["river"] = words["river"], words["mill"]
    swapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(state)),
        **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("pad", "bos", "eos", "unk")},
    )
    for number, (other, complaint) in enumerate(
        [(longer, r"is number none of the model's \d+ tokens"), (swapped, "'(mill|river)' is number")]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(folder_of("llama"), folder)  # the same weights
        other.save_pretrained(folder)
        with pytest.raises(ValueError, match=complaint):
            LikelihoodJudge(model_of("llama"), reference=load_model(folder))
