"""The upload to the Hugging Face Hub, by its own package `huggingface_hub`, with the account of its login.

The index of a dataset goes up last. So whoever reads meanwhile finds no episode whose shard is still missing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from worldmodel_v import __version__
from worldmodel_v.errors import ConfigError, PackageMissing, RemoteFailed, WorldModelError, one_line
from worldmodel_v.progress import Progress, Silent
from worldmodel_v.storage.index import INDEX_NAME
from worldmodel_v.surface import option

Kind = Literal["dataset", "model"]

REPLACED = ("shards/*", "data/*.parquet")
"""Files of an earlier upload that are deleted if they are not among the new ones. All others are left alone."""

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class Hub:
    """A repository that may not exist yet."""

    def __init__(self, repo: str, kind: Kind) -> None:
        """Makes no request; raises PackageMissing."""
        try:
            import huggingface_hub
        except ImportError:
            raise PackageMissing(
                f"{option('upload')} needs huggingface_hub, which is not installed", remedy="pip install 'worldmodel_v[hub]'"
            ) from None
        self._package, self.repo, self.kind = huggingface_hub, repo, kind
        self._api: Any = huggingface_hub.HfApi(library_name="worldmodel_v", library_version=__version__)

    def require_login(self) -> None:
        """Raise ConfigError if nobody is logged in, RemoteFailed if the Hub cannot be reached."""
        with self._told():
            self._api.whoami()

    def upload(self, folder: Path, *, private: bool, otherwise: str, progress: Progress) -> str:
        """Make the repository if there is none, and upload a folder; returns its URL.

        Raises ConfigError if the account may not, RemoteFailed. `otherwise` is the command that does it later.
        """
        progress.event("uploading", f"hub: uploading {folder} to {self.repo}", folder=folder, repo=self.repo)
        with self._bars(progress), self._told(f"{folder} is complete; upload it later with: {otherwise}"):
            made = self._api.create_repo(self.repo, repo_type=self.kind, private=private or None, exist_ok=True)
            common = {"repo_id": self.repo, "repo_type": self.kind, "folder_path": folder}
            if self.kind == "dataset":
                self._api.upload_folder(
                    **common, ignore_patterns=[INDEX_NAME], delete_patterns=[*REPLACED], commit_message="Shards and Parquet"
                )
                self._api.upload_folder(**common, allow_patterns=[INDEX_NAME], commit_message="The index, which names them")
            else:
                self._api.upload_folder(**common, commit_message="Weights and settings")
        return str(made)

    @contextmanager
    def _bars(self, progress: Progress) -> Iterator[None]:
        """Without the package's own bars where nobody sees them."""
        utils = self._package.utils
        if (isinstance(progress, Silent) or not sys.stderr.isatty()) and not utils.are_progress_bars_disabled():
            utils.disable_progress_bars()
            try:
                yield
            finally:
                utils.enable_progress_bars()
        else:
            yield

    @contextmanager
    def _told(self, remedy: str | None = None) -> Iterator[None]:
        """Raise the package's errors as ours."""
        try:
            yield
        except WorldModelError:
            raise
        except Exception as error:  # those of huggingface_hub, and of the HTTP library that it uses
            raise self._meant(error, remedy) from error

    def _meant(self, error: Exception, remedy: str | None) -> WorldModelError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401 or isinstance(error, self._package.errors.LocalTokenNotFoundError):
            return ConfigError(
                "nobody is logged in to the Hugging Face Hub, or the token is not valid",
                field="upload",
                remedy=remedy or LOG_IN,
            )
        if status in (403, 404):
            what = f"this account may not write there ({one_line(error)})"
            return ConfigError(what, field="repo", got=self.repo, remedy=remedy or LOG_IN)
        return RemoteFailed(
            f"the Hugging Face Hub does not do it ({one_line(error)})", where=self.repo, remedy=remedy or "run it again"
        )
