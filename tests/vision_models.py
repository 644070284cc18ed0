"""Small random vision-language models of several families, saved as a model on the hub is: weights, tokenizer, processor."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from PIL import Image as Pillow
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Images stand where they are in the message; IMAGE is what the family writes for one."""
IMAGES_FIRST = (
    "<bos>{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}IMAGE{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""All images of a message stand before its text, as in the templates of LLaVA."""
SPECIAL = [
    "<pad>", "<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<|vision_start|>", "<|image_pad|>",
    "<|vision_end|>", "<|video_pad|>", "<start_of_image>", "<image_soft_token>",
    "<end_of_image>", "<fake_token_around_image>",
    "<global-img>", "<end_of_utterance>", "<video>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]  # fmt: skip


def tokenizer(template: str, **named: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of characters, words that end in a space and runs of newlines, as byte-level ones have them."""
    words = [" Yes", " No", "Yes", "No", "\n\n", "\n", " ", "  "]
    tokens = [*SPECIAL, *words, *(chr(code) for code in range(33, 127))]
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n| ?(?:Yes|No)\b|[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=named,
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": SPECIAL}, replace_extra_special_tokens=False)
    made.chat_template = template
    return made


def llava() -> tuple[type, object, object]:
    """A tower of the CLIP kind, whose class token is left out."""
    words = tokenizer(IMAGES_FIRST.replace("IMAGE", "<image>\n"), image_token="<image>")
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(vocab_size=len(words), **TEXT),
        vision_config=transformers.CLIPVisionConfig(image_size=16, projection_dim=16, **TOWER),
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-2, tie_word_embeddings=False,
    )  # fmt: skip
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = transformers.LlavaProcessor(
        pixels, words, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration, config, processor


def llava_next() -> tuple[type, object, object]:
    """The same with tiles, whose number depends on the shape of the image."""
    words = tokenizer(IMAGES_FIRST.replace("IMAGE", "<image>\n"), image_token="<image>")
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = transformers.LlavaNextConfig(
        text_config=transformers.LlamaConfig(vocab_size=len(words), **TEXT),
        vision_config=transformers.CLIPVisionConfig(image_size=16, projection_dim=16, **TOWER),
        image_token_index=words.convert_tokens_to_ids("<image>"), image_grid_pinpoints=pinpoints, tie_word_embeddings=False,
    )  # fmt: skip
    pixels = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints
    )
    processor = transformers.LlavaNextProcessor(
        pixels, words, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )  # fmt: skip
    return transformers.LlavaNextForConditionalGeneration, config, processor


def llava_onevision() -> tuple[type, object, object]:
    """An image that is alone in its prompt has tiles; several have none."""
    words = tokenizer(CHATML.replace("IMAGE", "<image>\n"), image_token="<image>", video_token="<video>")
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = transformers.LlavaOnevisionConfig(
        text_config=transformers.Qwen2Config(vocab_size=len(words), **TEXT),
        vision_config=transformers.SiglipVisionConfig(image_size=16, **TOWER),
        image_token_index=words.convert_tokens_to_ids("<image>"), video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints, tie_word_embeddings=False, vision_feature_layer=-1,
    )  # fmt: skip
    pixels = transformers.LlavaOnevisionImageProcessor(size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints)
    processor = transformers.LlavaOnevisionProcessor(
        pixels, words, transformers.LlavaOnevisionVideoProcessor(size={"height": 16, "width": 16}), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=words.chat_template,
    )  # fmt: skip
    return transformers.LlavaOnevisionForConditionalGeneration, config, processor


def _qwen(kind: str) -> tuple[object, object]:
    words = tokenizer(
        CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"), image_token="<|image_pad|>",
        video_token="<|video_pad|>", vision_bos_token="<|vision_start|>", vision_eos_token="<|vision_end|>",
    )  # fmt: skip
    pixels = transformers.Qwen2VLImageProcessor(
        patch_size=4, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 256, "longest_edge": 1024}
    )
    videos = transformers.Qwen2VLVideoProcessor if kind == "2.5" else transformers.Qwen3VLVideoProcessor
    video = videos(patch_size=4, temporal_patch_size=2, merge_size=2)
    processor_class = transformers.Qwen2_5_VLProcessor if kind == "2.5" else transformers.Qwen3VLProcessor
    return words, processor_class(pixels, words, video, chat_template=words.chat_template)


def _named(words: object) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    return {name: words.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen2_5_vl() -> tuple[type, object, object]:
    """Positions of three axes; attention in windows in the tower."""
    words, processor = _qwen("2.5")
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={"vocab_size": len(words), **TEXT, "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=False, **_named(words),
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration, config, processor


def qwen3_vl() -> tuple[type, object, object]:
    """Positions of three axes; what the tower's layers give enters several layers of the language model."""
    words, processor = _qwen("3")
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config={"vocab_size": len(words), **TEXT, "head_dim": 8, "rope_parameters": rope},
        vision_config={
            "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=False, **_named(words),
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration, config, processor


def gemma3() -> tuple[type, object, object]:
    """Tokens of an image see each other in both directions; layers with sliding windows."""
    words = tokenizer(
        "<bos>" + CHATML.replace("IMAGE", "<start_of_image>"), image_token="<image_soft_token>", boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )  # fmt: skip
    config = transformers.Gemma3Config(
        text_config={
            "vocab_size": len(words), **TEXT, "head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config={"image_size": 16, **TOWER}, mm_tokens_per_image=4, tie_word_embeddings=False,
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )  # fmt: skip
    pixels = transformers.Gemma3ImageProcessor(size={"height": 16, "width": 16})
    processor = transformers.Gemma3Processor(pixels, words, chat_template=words.chat_template, image_seq_length=4)
    return transformers.Gemma3ForConditionalGeneration, config, processor


def idefics3() -> tuple[type, object, object]:
    """Tiles with tokens for rows and columns between them."""
    words = tokenizer(CHATML.replace("IMAGE", "<image>"), image_token="<image>")
    config = transformers.Idefics3Config(
        text_config=transformers.LlamaConfig(vocab_size=len(words), **TEXT),
        vision_config={"image_size": 16, **TOWER}, image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2,
        tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    pixels = transformers.Idefics3ImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = transformers.Idefics3Processor(pixels, words, image_seq_len=4, chat_template=words.chat_template)
    return transformers.Idefics3ForConditionalGeneration, config, processor


def smolvlm() -> tuple[type, object, object]:
    """The same in another class."""
    words = tokenizer(
        CHATML.replace("IMAGE", "<image>"), image_token="<image>", fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )  # fmt: skip
    config = transformers.SmolVLMConfig(
        text_config=transformers.LlamaConfig(vocab_size=len(words), **TEXT),
        vision_config={"image_size": 16, **TOWER}, image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2,
        tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    pixels = transformers.SmolVLMImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = transformers.SmolVLMProcessor(
        pixels, words, transformers.SmolVLMVideoProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        image_seq_len=4, chat_template=words.chat_template,
    )  # fmt: skip
    return transformers.SmolVLMForConditionalGeneration, config, processor


NEED_TORCHVISION = {
    "llava_onevision": llava_onevision,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "smolvlm": smolvlm,
}
FAMILIES = {"llava": llava, "llava_next": llava_next, "gemma3": gemma3, "idefics3": idefics3}
if find_spec(
    "torchvision"
):  # a folder of its own in the continuous integration, since torchvision is made for one build of torch
    FAMILIES |= NEED_TORCHVISION


def save(family: str, folder: Path) -> Path:
    """A random model of a family, with weights large enough for images and steering to show."""
    model_class, config, processor = FAMILIES[family]()
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(seed: int, width: int = 24, height: int = 16) -> Pillow.Image:
    """Coloured noise."""
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Pillow.fromarray(noise.numpy())
