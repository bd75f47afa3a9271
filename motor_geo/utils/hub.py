r"""Saves modules and tokenizers to folders and to the Hugging Face Hub, and loads them."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import os.path as osp
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from motor_geo.utils.errors import one_line, suggest
from motor_geo.utils.extras import needs
from motor_geo.utils.files import atomic_write, check_file, read_json, writing
from motor_geo.utils.model_card import Section, model_card

T = TypeVar('T', bound='HubMixin')

CARD = 'README.md'
#: Keys of a configuration that are not arguments of the constructor.
CLASS, VERSION = '_class_name', '_motor_geo_version'


class HubMixin:
    r"""Adds the methods :meth:`save_pretrained`, :meth:`from_pretrained` and
    :meth:`push_to_hub` of the Hugging Face libraries to a class. They store the
    arguments of the constructor as JSON and the tensors as `safetensors
    <https://huggingface.co/docs/safetensors>`_, with a model card. They do not
    use pickle and do not execute code from the files.

    A subclass must store every argument of its constructor as an attribute of
    the same name. Folders need the package :obj:`safetensors`, and repositories
    also need :obj:`huggingface_hub` (the extra :obj:`hub`).
    """

    #: File names of the arguments and of the tensors.
    hub_files: ClassVar[tuple[str, str]] = ('config.json', 'model.safetensors')

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> str | None:
        r"""Writes the arguments, the tensors and a model card to a folder. An
        encoder and a tokenizer can share a folder, and each has its own
        section in the card. Text that you added to the card is kept.

        Args:
            save_directory: The folder. It is created if necessary.
            repo_id: Name of the repository, for the card and for
                :obj:`push_to_hub`. (default: the name of the folder)
            push_to_hub: If set to :obj:`True`, also uploads the files.
            metadata: Entries of the YAML header of the card, such as
                :obj:`{'license': 'mit', 'datasets': ['...']}`. There is no
                default license.
            **kwargs (optional): Arguments of :meth:`push_to_hub`.

        Returns:
            The address of the commit, or :obj:`None` without an upload.

        Raises:
            ImportError: If :obj:`safetensors` is missing.
            OSError: If the folder cannot be written.
            ValueError: If an argument of the constructor is not stored as an
                attribute or cannot be written as JSON, or if
                :obj:`**kwargs` are given without :obj:`push_to_hub`.
        """
        if kwargs and not push_to_hub:
            raise ValueError(f"{', '.join(sorted(kwargs))}: expected only with 'push_to_hub=True'")
        need('safetensors', 'save_pretrained')
        from safetensors.torch import save_file

        folder = osp.abspath(osp.expanduser(os.fspath(save_directory)))
        settings, tensors = self._hub_settings(), self._hub_tensors()
        content = {CLASS: type(self).__name__, VERSION: _version(), **settings}
        try:
            text = json.dumps(content, indent=2, allow_nan=False) + '\n'
        except (TypeError, ValueError) as error:
            raise ValueError(
                f'The arguments of {type(self).__name__} cannot be written as JSON: {error}'
            ) from error
        # safetensors does not support tensors that share memory.
        tensors = {
            name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()
        }
        config, weights = (osp.join(folder, name) for name in self.hub_files)
        with writing(weights), atomic_write(weights) as temporary:
            save_file(tensors, temporary, {'format': 'pt'})
            _as_usual(temporary)
        write_text(config, text)
        title, card = repo_id or osp.basename(folder), osp.join(folder, CARD)
        before = None
        if osp.isfile(card):
            with open(card, encoding='utf-8') as file:
                before = file.read()
        about = Section(
            *(type(self).__name__, self._hub_usage(title), self.hub_files, settings),
            sum(value.numel() for value in tensors.values()),
            {'motor_geo': _version(), 'torch': torch.__version__},
        )
        write_text(card, model_card(title, about, before, metadata))
        if not push_to_hub:
            return None
        return self.push_to_hub(title, metadata=metadata, **kwargs)

    @classmethod
    def from_pretrained(
        cls: type[T],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> T:
        r"""Loads an object that :meth:`save_pretrained` wrote. Modules are in
        evaluation mode; call :obj:`module.train()` to continue training.

        Args:
            pretrained_model_name_or_path: A folder, or the name of a
                repository, such as :obj:`'user/name'`.
            revision: Branch, tag or commit of the repository.
            token: Access token of the hub, or whether to use the stored one.
            cache_dir: Folder of the downloads.
            force_download: If set to :obj:`True`, downloads the files again.
            local_files_only: If set to :obj:`True`, does not use the network.
            **kwargs (optional): Arguments of the constructor that override the
                saved ones.

        Raises:
            ImportError: If a package is missing.
            OSError: If a file is missing or cannot be downloaded.
            ValueError: If a file is damaged, belongs to another class, or does
                not match the other file.
        """
        need('safetensors', 'from_pretrained')
        name = os.fspath(pretrained_model_name_or_path)
        options = {
            'revision': revision,
            'token': token,
            'cache_dir': cache_dir,
            'force_download': force_download,
            'local_files_only': local_files_only,
        }
        path, weights = (_find(name, file, options) for file in cls.hub_files)
        from safetensors.torch import load_file

        kind, settings = cls._hub_read(path)
        known = _arguments(kind)
        for source, given in (('', kwargs), (f"'{path}': ", settings)):
            for key in given:
                if key not in known:
                    raise ValueError(
                        f"{source}{kind.__name__} has no argument '{key}'{suggest(key, known)}"
                    )
        kind._hub_check(path, settings, kwargs)
        check_file(weights, 'a safetensors file')
        try:
            # Copies have PyTorch's memory alignment, on which the rounding of sums depends.
            tensors = {key: value.clone() for key, value in load_file(weights).items()}
        except Exception as error:
            raise ValueError(
                f"'{weights}' cannot be read as safetensors: {one_line(error)}"
            ) from error
        return kind._from_hub(path, weights, {**settings, **kwargs}, tensors)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        r"""Uploads the files of :meth:`save_pretrained` to a repository of the
        hub, and creates it if necessary. Text that was added to an existing
        card is kept.

        Args:
            repo_id: Name of the repository, such as :obj:`'user/name'`.
            commit_message: Message of the commit.
            private: Whether a new repository is private.
            token: Access token of the hub. (default: the stored one)
            revision: Branch to upload to. It is created if necessary.
            create_pr: If set to :obj:`True`, opens a pull request.
            metadata: Entries of the YAML header of the card.

        Returns:
            The address of the commit or of the pull request.

        Raises:
            ImportError: If :obj:`huggingface_hub` or :obj:`safetensors` is
                missing.
        """
        need('huggingface_hub', 'push_to_hub')
        from huggingface_hub import HfApi

        api = HfApi(token=token, library_name='motor_geo', library_version=_version())
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            if api.file_exists(repo_id, CARD, revision=revision):
                api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=folder)
            self.save_pretrained(folder, repo_id=repo_id, metadata=metadata)
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f'{type(self).__name__} of motor_geo',
                revision=revision,
                create_pr=create_pr,
                allow_patterns=[*self.hub_files, CARD],
            )
        return str(info.pr_url if create_pr else info.commit_url)

    def _hub_settings(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        out = {}
        for name in _arguments(type(self)):
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} cannot be saved: expected an attribute '{name}' with "
                    'the argument of that name'
                )
            out[name] = getattr(self, name)
        return out

    def _hub_tensors(self) -> dict[str, Tensor]:
        return cast(nn.Module, self).state_dict()

    @classmethod
    def _hub_read(cls: type[T], path: str) -> tuple[type[T], dict[str, Any]]:
        r"""Reads the class and the arguments from a file."""
        try:
            content = read_json(path)
        except ValueError as error:
            raise ValueError(f"'{path}' cannot be read as JSON: {one_line(error)}") from error
        name = content.get(CLASS) if isinstance(content, dict) else None
        if not isinstance(name, str):
            raise ValueError(
                f"'{path}' has no '{CLASS}'; expected a file that {cls.__name__}.save_pretrained "
                'wrote'
            )
        kinds = {kind.__name__: kind for kind in _subclasses(cls)}
        if name not in kinds:
            raise ValueError(f"'{path}' has the class '{name}'; expected {' or '.join(kinds)}")
        return kinds[name], {key: value for key, value in content.items() if key[:1] != '_'}

    @classmethod
    def _hub_check(cls, path: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        r"""Raises an error if an argument in a file is not safe to use."""

    @classmethod
    def _from_hub(
        cls: type[T], path: str, weights: str, settings: dict[str, Any], tensors: dict[str, Tensor]
    ) -> T:
        with building(cls, path), torch.random.fork_rng(devices=[]):
            module = cast(nn.Module, cls(**settings))
        expected = module.state_dict()
        for key in sorted({*expected, *tensors}):
            found = [list(part[key].shape) if key in part else None for part in (tensors, expected)]
            if found[0] != found[1]:
                raise ValueError(
                    f"'{weights}': expected '{key}' of shape {found[1]} as in '{path}', "
                    f'got {found[0]}'
                )
        module.load_state_dict(tensors, assign=True)
        return cast(T, module.eval())

    def _hub_usage(self, repo: str) -> str:
        r"""Returns the example for the card."""
        name = type(self).__name__
        return (
            f"from motor_geo.nn import {name}\n\nencoder = {name}.from_pretrained('{repo}')\n"
            'x = encoder(token_id)  # Tokens of the tokenizer that it was trained with.'
        )


def need(package: str, what: str) -> None:
    r"""Checks that a package of the extra :obj:`hub` is installed.

    Args:
        package: The package.
        what: What needs it, for the message.

    Raises:
        ImportError: If the package is missing.
    """
    if find_spec(package) is None:
        raise ImportError(needs(what, package, extra='hub'))


@contextlib.contextmanager
def building(kind: type, path: str) -> Iterator[None]:
    r"""Adds the name of the file to errors while an object is built from it.

    Args:
        kind: The class of the object.
        path: The file.

    Raises:
        ValueError: If the object cannot be built.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"'{path}' does not define a valid {kind.__name__} "
            f'({one_line(error) or type(error).__name__})'
        ) from error


def _arguments(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def _subclasses(kind: type[T]) -> Iterator[type[T]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


def _find(name: str, file: str, options: Mapping[str, Any]) -> str:
    r"""Returns the path of a file in a folder, or of its download from a repository."""
    folder = osp.expanduser(name)
    if osp.isdir(folder):
        path = osp.join(folder, file)
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"'{name}' has no '{file}'; expected a folder that save_pretrained wrote"
            )
        return path
    if not re.fullmatch(r'[\w.-]+(/[\w.-]+)?', name) or name.startswith('.'):
        raise FileNotFoundError(
            f"'{name}' does not exist; expected a folder, or a repository such as 'user/name'"
        )
    need('huggingface_hub', f"from_pretrained('{name}') from a repository (no such folder exists)")
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(
            name, file, library_name='motor_geo', library_version=_version(), **options
        )
    except Exception as error:
        reason = one_line(error).partition('. ')[0].rstrip('.')
        raise OSError(
            f"'{name}' is not a folder, and its '{file}' cannot be downloaded from the hub "
            f'({type(error).__name__}: {reason})'
        ) from error


def write_text(path: str, text: str) -> None:
    r"""Writes a text file atomically."""
    with writing(path), atomic_write(path) as temporary:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)


def _as_usual(path: str) -> None:
    r"""Sets the default permissions of new files, because safetensors writes private ones."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def _version() -> str:
    from motor_geo import __version__

    return __version__
