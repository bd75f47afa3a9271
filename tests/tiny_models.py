r"""Builds tiny models with random weights for transformers and sentence-transformers."""

import pytest
import torch

WORDS = 'bottle toy baby acme feeding red blue chair lamp what is this a picture of'.split()
LETTERS = 'abcdefghijklmnopqrstuvwxyz'


def tokenizer_of(special, kind='PreTrainedTokenizerFast', **tokens):
    r"""A tokenizer that splits at spaces."""
    tokenizers, transformers = map(pytest.importorskip, ('tokenizers', 'transformers'))
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, *LETTERS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='[UNK]'))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    names = ['input_ids', 'attention_mask']
    kind = getattr(transformers, kind)
    return kind(tokenizer_object=tokenizer, model_input_names=names, **tokens)


def tiny_text_model(folder, width=16):
    r"""A sentence-transformers model with mean pooling."""
    st = pytest.importorskip('sentence_transformers')
    transformers = pytest.importorskip('transformers')
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]']
    tokenizer = tokenizer_of(special, pad_token='[PAD]', unk_token='[UNK]')
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    inner = folder / 'inner'
    transformers.BertModel(config).save_pretrained(inner)
    tokenizer.save_pretrained(inner)
    # Without a pooling configuration, sentence-transformers uses mean pooling.
    st.SentenceTransformer(str(inner)).save(str(folder / 'model'))
    return str(folder / 'model')


def tiny_caption_model(folder):
    r"""BLIP, which continues a text. Its processor has no chat template."""
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('PIL')
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[DEC]']
    names = {'pad_token': '[PAD]', 'unk_token': '[UNK]'}
    more = {'additional_special_tokens': ['[DEC]'], 'sep_token': '[SEP]', 'cls_token': '[CLS]'}
    tokenizer = tokenizer_of(special, 'BertTokenizerFast', **names, **more)
    vision = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1}
    vision |= {'num_attention_heads': 2, 'image_size': 16, 'patch_size': 8}
    ids = {'bos_token_id': 4, 'eos_token_id': 3, 'sep_token_id': 3, 'pad_token_id': 0}
    text = {'hidden_size': 16, 'encoder_hidden_size': 16, 'intermediate_size': 16}
    text |= {'num_hidden_layers': 1, 'num_attention_heads': 2, 'max_position_embeddings': 64}
    text |= {'vocab_size': len(tokenizer), **ids}
    torch.manual_seed(0)
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.BlipImageProcessor(size={'height': 16, 'width': 16})
    transformers.BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return str(folder)


CHAT = (
    "{% for m in messages %}user {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}"
    '{% endfor %}{% endfor %}assistant'
)


def tiny_chat_model(folder):
    r"""LLaVA, a language model with image tokens and a chat template."""
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('PIL')
    special = ['<pad>', '<s>', '</s>', '[UNK]', '<image>', 'user', 'assistant']
    names = {'pad_token': '<pad>', 'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '[UNK]'}
    tokenizer = tokenizer_of(special, **names, additional_special_tokens=['<image>'])
    small = {'hidden_size': 16, 'intermediate_size': 16, 'num_attention_heads': 2}
    text = transformers.LlamaConfig(
        **small,
        vocab_size=len(tokenizer),
        num_hidden_layers=1,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    vision = transformers.CLIPVisionConfig(
        **small, num_hidden_layers=1, image_size=16, patch_size=8
    )
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=4, vision_feature_layer=-1
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(
        size={'shortest_edge': 16}, crop_size={'height': 16, 'width': 16}
    )
    transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy='default',
        chat_template=CHAT,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return str(folder)
