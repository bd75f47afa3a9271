r"""Describes images with language models. A text encoder then encodes the descriptions."""

from __future__ import annotations

import inspect
import json
import os
import os.path as osp
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from motor_geo.utils.errors import one_line
from motor_geo.utils.extras import needs
from motor_geo.utils.files import atomic_write, writing
from motor_geo.utils.plugin import import_function

PROMPT = (
    'Describe the product in this picture for somebody who cannot see it: what it is, its color, '
    'material, shape, pattern and use.'
)
#: File of the descriptions: one line with the settings, and one per image.
FILE = 'image_descriptions.jsonl'
PRECISIONS = ('float32', 'bfloat16', 'float16')

Describe = Callable[[Sequence[Any]], Sequence[str]]


class Describer(NamedTuple):
    r"""A model that describes images.

    Args:
        describe: A function from Pillow images to one text per image.
        source: The origin of the texts: model, revision, prompt, precision.
    """

    describe: Describe
    source: dict[str, Any]


def picture_describer(
    name: str, prompt: str = PROMPT, max_new_tokens: int = 64, precision: str | None = None
) -> Describer:
    r"""Loads a model that describes images, as in the `"Learning Item
    Representations Directly from Multimodal Features for Effective
    Recommendation" <https://arxiv.org/abs/2505.04960>`_ paper. Decoding is
    greedy, so the texts are reproducible.

    Args:
        name: A :obj:`transformers` model that generates text from images and
            text, as :obj:`NAME`, :obj:`NAME@REVISION` or a folder, or the
            import path of a function from images to texts.
        prompt: Prompt for the model.
        max_new_tokens: Maximum number of tokens of a text.
        precision: Data type of the weights, one of :obj:`PRECISIONS`.
            (default: that of the stored weights)

    Raises:
        ValueError: If there is no such model, it cannot be loaded, or
            :obj:`max_new_tokens` is below 1.
    """
    if max_new_tokens < 1:
        raise ValueError(f'--max-new-tokens must be at least 1 (got {max_new_tokens})')
    if is_import_path(name):
        try:
            function = import_function(name)
        except ValueError as error:
            raise ValueError(f"--describe: '{name}' {error}") from error
        return Describer(function, {'describer': name})
    if find_spec('transformers') is None:
        message = needs(f"--describe '{name}'", 'transformers', extra='features')
        raise ValueError(f'{message}; without it, expected the import path of a function')
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place, revision = split_revision(name)
    options = {} if revision is None else {'revision': revision}
    dtype = {} if precision is None else {'dtype': getattr(torch, precision)}
    try:
        processor = AutoProcessor.from_pretrained(place, **options)
        model = AutoModelForImageTextToText.from_pretrained(place, **options, **dtype)
    except Exception as error:
        raise ValueError(
            f"--describe: the model '{name}' cannot be loaded ({type(error).__name__}: "
            f'{one_line(error)[:200]}); expected the name or the folder of a transformers model '
            'that generates text from images and text'
        ) from error
    model = model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    source = {
        'describer': name,
        'transformers': version('transformers'),
        'revision': getattr(model.config, '_commit_hash', None),
        'prompt': prompt,
        'max_new_tokens': max_new_tokens,
        'precision': str(model.dtype).removeprefix('torch.'),
    }

    def describe(pictures: Sequence[Any]) -> list[str]:
        return _generate(model, processor, list(pictures), prompt, max_new_tokens)

    return Describer(describe, source)


def is_import_path(name: str) -> bool:
    r"""Returns whether a name is the import path of a function and not a folder.

    Args:
        name: The name.
    """
    here = osp.isdir(osp.expanduser(name))
    return not here and '.' in name and all(part.isidentifier() for part in name.split('.'))


def split_revision(name: str) -> tuple[str, str | None]:
    r"""Splits :obj:`NAME@REVISION` into the model and its revision. A folder has
    no revision.

    Args:
        name: The name, or the folder.
    """
    folder = osp.expanduser(name)
    if osp.isdir(folder) or '@' not in name:
        return folder, None
    place, _, revision = name.rpartition('@')
    return place, revision


@torch.inference_mode()
def _generate(
    model: Any, processor: Any, pictures: list[Any], prompt: str, max_new_tokens: int
) -> list[str]:
    tokenizer = getattr(processor, 'tokenizer', processor)
    if not model.config.is_encoder_decoder:
        tokenizer.padding_side = 'left'  # Generated tokens are appended on the right.
    if getattr(processor, 'chat_template', None):
        inputs = _chat(processor, pictures, prompt)
    else:
        texts = [prompt] * len(pictures)
        inputs = processor(images=pictures, text=texts, return_tensors='pt', padding=True)
    inputs = inputs.to(model.device)
    for key, value in inputs.items():
        if torch.is_tensor(value) and value.is_floating_point():
            inputs[key] = value.to(model.dtype)
    out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    asked = inputs.get('input_ids')
    rows = [row if asked is None else _answer(row, asked[i]) for i, row in enumerate(out)]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return [' '.join(text.split()) for text in texts]


def _chat(processor: Any, pictures: list[Any], prompt: str) -> Any:
    talks = []
    for picture in pictures:
        content = [{'type': 'image', 'image': picture}, {'type': 'text', 'text': prompt}]
        talks.append([{'role': 'user', 'content': content}])
    own: dict[str, Any] = {'padding': True}
    if 'processor_kwargs' in inspect.signature(processor.apply_chat_template).parameters:
        own = {'processor_kwargs': own}
    return processor.apply_chat_template(
        talks,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors='pt',
        **own,
    )


def _answer(row: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    r"""Removes the prompt if the output of the model repeats it. In some models,
    the first and the last token of the repeated prompt differ.
    """
    size, same = min(len(row), len(asked)), 1
    while same < size and bool(row[same] == asked[same]):
        same += 1
    return row[same:] if same >= len(asked) - 1 else row


def describe_pictures(
    folder: str,
    paths: Sequence[str | None],
    describer: Describer,
    load: Callable[[str], Any],
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda count: None,
) -> list[str]:
    r"""Describes the images of items. The descriptions are stored in
    :obj:`image_descriptions.jsonl`. An image that was described with the same
    settings is not described again.

    Args:
        folder: The folder of the file.
        paths: The image path of each item, or :obj:`None`.
        describer: The model.
        load: A function that loads an image from a path.
        batch_size: Number of images per batch.
        progress: A function that is called with the number of finished images.

    Returns:
        The description of each item; empty if it has no image.

    Raises:
        ValueError: If the model does not return one text per image.
    """
    path = osp.join(folder, FILE)
    known = _read(path, describer.source)
    present = list(dict.fromkeys(picture for picture in paths if picture))
    keys = {picture: _key(picture) for picture in present}
    todo = [picture for picture in present if keys[picture] not in known]
    done = len(present) - len(todo)
    progress(done)
    with writing(path), open(path, 'a', encoding='utf-8') as file:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            texts = list(describer.describe([load(picture) for picture in batch]))
            if len(texts) != len(batch) or not all(isinstance(text, str) for text in texts):
                count = sum(isinstance(text, str) for text in texts)
                raise ValueError(
                    f"--describe '{describer.source['describer']}': expected {len(batch)} texts, "
                    f'one per image, got {count} texts among {len(texts)} values'
                )
            for picture, text in zip(batch, texts):
                known[keys[picture]] = text
                file.write(json.dumps([*keys[picture], text], ensure_ascii=False) + '\n')
            file.flush()
            progress(done + start + len(batch))
    return ['' if picture is None else known[keys[picture]] for picture in paths]


def _key(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return osp.basename(path), found.st_size, found.st_mtime_ns


def _read(path: str, source: dict[str, Any]) -> dict[tuple[str, int, int], str]:
    r"""Reads the descriptions if the file has the same settings, and starts a new
    file otherwise. Removes incomplete lines.
    """
    lines = []
    if osp.isfile(path):
        with open(path, encoding='utf-8', errors='replace') as file:
            lines = [line for line in file if line.endswith('\n')]
    known: dict[tuple[str, int, int], str] = {}
    if lines and _parsed(lines[0]) == source:
        for line in lines[1:]:
            entry = _parsed(line)
            if isinstance(entry, list) and len(entry) == 4:
                known[entry[0], entry[1], entry[2]] = entry[3]
    content = [source, *([*key, text] for key, text in known.items())]
    with writing(path), atomic_write(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.writelines(json.dumps(entry, ensure_ascii=False) + '\n' for entry in content)
    return known


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
