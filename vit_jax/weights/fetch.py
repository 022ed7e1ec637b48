"""Weight files from wherever they are: a path, the web, a public bucket or the Hugging Face Hub."""

import difflib
import hashlib
import http.client
import os
import pathlib
import re
import string
import urllib.error
import urllib.parse
import urllib.request

import filelock
import tqdm

from vit_jax.cache import cache_folder
from vit_jax.errors import InputError

BUCKETS = "https://storage.googleapis.com"
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 18


def fetch(where: str | os.PathLike, also: tuple[str, ...] = ()) -> pathlib.Path:
    """Return the local path of a file or folder, downloading it first if it is elsewhere.

    A download is kept in `$VIT_JAX_CACHE` (or `~/.cache/vit_jax`; the Hub's in its own cache) and not asked for again.
    One that was cut off is resumed, and takes its name only when it is whole.

    Args:
        where: a path, `https://...`, `gs://bucket/name` (public), or `hf://org/name[/file]`, which without a file
            is the folder of `config.json` and `model.safetensors` (or the files of its index), or else the one `.npz`
            file there is.
        also: further files of the folder, where the Hub has them.

    Raises:
        InputError: nothing is there, it may not be read, or the connection fails or breaks.
    """
    where = os.fspath(where)
    scheme, separator, rest = where.partition("://")
    if not separator:
        return _local(where)
    if scheme in ("http", "https"):
        return _download(where)
    if scheme == "gs":
        return _download(f"{BUCKETS}/{urllib.parse.quote(rest)}")
    if scheme == "hf":
        return _from_hub(where, rest, also)
    raise InputError(f"{where}: {scheme}:// isn't known; give a path, https://, gs:// or hf://org/name")


def _local(where: str) -> pathlib.Path:
    path = pathlib.Path(where).expanduser()
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise InputError(f"{where}: does not exist, nor does its folder {str(path.parent)!r}")
    close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    raise InputError(
        f"{where}: does not exist" + (f"; did you mean {str(path.with_name(close[0]))!r}?" if close else "")
    )


def _cached(url: str) -> pathlib.Path:
    """Return where a URL's file is kept: its own name, made unique by a hash."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't keep downloads there ({error.strerror}); set VIT_JAX_CACHE") from error
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    return folder / (hashlib.sha256(url.encode()).hexdigest()[:16] + "-" + re.sub(r"[^\w.-]", "_", name)[-100:])


def _download(url: str) -> pathlib.Path:
    # What follows the question mark may be a signature, which error messages have no business with.
    shown = url.partition("?")[0]
    # Spaces and letters beyond ASCII as every browser sends them.
    url = urllib.parse.quote(url, safe=string.punctuation)
    try:
        if not urllib.parse.urlsplit(url).hostname:
            raise ValueError("it names no host")
        path = _cached(url)
        if not path.exists():
            with filelock.FileLock(f"{path}.lock"):
                # Another process may have brought it while this one waited.
                if not path.exists():
                    _complete(url, path)
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        hint = {
            401: "it isn't public: download it by hand and give its path",
            403: "it isn't public: download it by hand and give its path",
            404: "nothing is there: check the address",
        }.get(error.code, "run again later")
        raise InputError(f"{shown}: the server answers {error.code} {error.reason}; {hint}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"{shown}: not an address to download from ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        line = " ".join(str(reason).split()) or type(reason).__name__
        raise InputError(f"{shown}: not downloaded ({line}); run again to resume") from error
    return path


def _complete(url: str, path: pathlib.Path) -> None:
    """Download what is missing of `path.part` and give it its name.

    `path.tag` says which version of the remote file the part is of; without one the download starts over.
    """
    part, tag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.tag")
    held = tag.read_text() if tag.exists() else ""
    start = part.stat().st_size if held and part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-", "If-Range": held} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        # The part is as long as the file or longer, so it was never found to be whole.
        error.close()
        tag.unlink()
        return _complete(url, path)
    with response:
        length, version = response.headers["Content-Length"], _version(response.headers)
        if start and response.status == 206:
            continues = (response.headers["Content-Range"] or "").startswith(f"bytes {start}-")
            if not continues or version != held:
                tag.unlink()
                return _complete(url, path)
        else:
            start = 0
        if length is None and not response.chunked:
            shown = url.partition("?")[0]
            raise InputError(f"{shown}: the server doesn't say how long it is; download it by hand and give its path")
        total = None if length is None else start + int(length)
        bar = tqdm.tqdm(total=total, initial=start, desc=path.name.partition("-")[2], unit="B", unit_scale=True)
        with bar, open(part, "ab" if start else "wb") as file:
            if not start:
                # After the old bytes are gone and before the new ones come: the tag is never that of other bytes.
                tag.write_text(version)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            if total is not None and file.tell() != total:
                raise OSError(f"the connection broke off at {file.tell():,} of {total:,} bytes")
    os.replace(part, path)
    tag.unlink()


def _version(headers: http.client.HTTPMessage) -> str:
    """Return what `If-Range` can be asked with, or "" if the server gives nothing that tells versions apart."""
    etag = headers["ETag"] or ""
    return etag if etag.startswith('"') else headers["Last-Modified"] or ""


def _from_hub(where: str, rest: str, also: tuple[str, ...]) -> pathlib.Path:
    import huggingface_hub  # Half a second that a local path need not wait for.
    from huggingface_hub import errors

    owner, _, rest = rest.partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name):
        raise InputError(f"{where}: write hf://org/name or hf://org/name/file")
    repo = f"{owner}/{name}"
    try:
        if file:
            return pathlib.Path(huggingface_hub.hf_hub_download(repo, file))
        wanted = ["model.safetensors", "config.json", "preprocessor_config.json", *also]
        folder = pathlib.Path(huggingface_hub.snapshot_download(repo, allow_patterns=wanted))
        if (folder / "model.safetensors").exists():
            return folder
        listed = huggingface_hub.list_repo_files(repo)
        if "model.safetensors.index.json" in listed:
            wanted += ["model.safetensors.index.json", "model-*.safetensors"]
            return pathlib.Path(huggingface_hub.snapshot_download(repo, allow_patterns=wanted))
        archives = [file for file in listed if file.endswith(".npz")]
        if len(archives) == 1:
            return pathlib.Path(huggingface_hub.hf_hub_download(repo, archives[0]))
    except Exception as error:  # Whatever its HTTP library raises comes through.
        reasons = {
            errors.GatedRepoError: "its terms must be accepted on its page first, then log in with `hf auth login`",
            errors.RepositoryNotFoundError: "there is no such repository, or it is private: see `hf auth login`",
            errors.LocalEntryNotFoundError: "the Hub can't be reached and the cache doesn't hold it; run again later",
            errors.EntryNotFoundError: "the repository has no such file",
        }
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), " ".join(str(error).split()))
        raise InputError(f"{where}: {reason or type(error).__name__}") from error
    choice = f", but several .npz: give one, such as hf://{repo}/{archives[0]}" if archives else " nor .npz file"
    raise InputError(f"{where}: the repository has no model.safetensors{choice}")
