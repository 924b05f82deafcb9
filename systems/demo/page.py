"""The page of the demo, made with Gradio.

With the default address, only this machine can open the page. The page does not use other servers: Gradio's analytics
are off, and the theme uses the fonts of the system. In addition, the header Content-Security-Policy forbids browsers to
load data from other servers, or to send data to them. Uploaded sounds are kept in a temporary folder, which is deleted
when the demo ends.
"""

import html
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gradio
from starlette.middleware import Middleware

from evaluation.data.audio import UnusableSound
from evaluation.data.dataset import Split
from evaluation.findings import BadRequest
from evaluation.report import number
from evaluation.text import html_table
from systems import runs
from systems.demo.captions import captions_of
from systems.runs import LoadedRun
from systems.search.collection import Collection as SearchableClips

LOCAL = "127.0.0.1"
TITLE = "Try a system"
PLAYERS = 5  # maximum number of clips that a search shows
LARGEST_UPLOAD = "100mb"
# Gradio's page has inline scripts and styles, and it plays sounds from blobs.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
ONE_AT_A_TIME = "models"  # a group of events that never run at the same time, because they share the models


class OwnContentOnly:
    """A layer of the web server that adds the header `Content-Security-Policy` to all responses.

    Args:
        app: The application whose responses get the header.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Awaitable[None]]) -> None:
        """Answer a request, and add the header to the response."""

        async def send_with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(
    folders: Sequence[Path],
    split: Split | None,
    trusted: Collection[str] = (),
    address: str = LOCAL,
    port: int | None = None,
) -> None:
    """Load runs, and serve the page until the process is interrupted.

    Args:
        folders: Run folders, or folders that `systems export` wrote.
        split: The split whose clips a retriever searches; None if all runs are captioners.
        trusted: Import names of modules that runs may name in addition to the kit's systems.
        address: The IP address at which the page is served. With the default, only this machine can open the page.
        port: The port (default: the first free one from 7860).

    Raises:
        BadRequest: A folder does not contain a trained run, or a run is a retriever and `split` is None.
        Faulty: Audio files of the split cannot be used. The exception lists all findings.
    """
    with serving(folders, split, trusted, address, port) as url:
        print(f"{url}: open this page in a browser; press Ctrl-C to stop", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped")


@contextmanager
def serving(
    folders: Sequence[Path],
    split: Split | None,
    trusted: Collection[str] = (),
    address: str = LOCAL,
    port: int | None = None,
) -> Iterator[str]:
    """Serve the page until the block ends, and yield its URL. The arguments and the exceptions are those of `serve`."""
    with ExitStack() as stack:
        # Gradio copies uploaded sounds and played sounds to this folder.
        os.environ["GRADIO_TEMP_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-"))
        loaded = []
        for folder in folders:
            loaded.append((folder.name, stack.enter_context(runs.loaded(folder, trusted))))
        page = make_page(loaded, split)
        audio_folders = {str(clip.path.parent.absolute()) for clip in split.clips} if split else set()
        _, url, _ = page.launch(
            server_name=address,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            footer_links=[],
            allowed_paths=sorted(audio_folders),
            max_file_size=LARGEST_UPLOAD,
            ssr_mode=False,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            app_kwargs={"middleware": [Middleware(OwnContentOnly)]},
        )
        stack.callback(page.close, verbose=False)
        yield url


def make_page(loaded: Sequence[tuple[str, LoadedRun]], split: Split | None) -> gradio.Blocks:
    """Make the page, with a tab for each run.

    Args:
        loaded: Pairs of the name of a tab and its run.
        split: As for `serve`.

    Raises:
        BadRequest: As for `serve`.
        Faulty: As for `serve`.
    """
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"# {TITLE}")
        for name, run in loaded:
            with gradio.Tab(name):
                tasks = runs.tasks(run.model)
                if not tasks:
                    raise BadRequest(f"the model of {run.system} must be a retriever or a captioner; found neither")
                if "retrieval" in tasks:
                    _add_search(run, split)
                if "captioning" in tasks:
                    _add_captions(run)
    return page


def _add_search(run: LoadedRun, split: Split | None) -> None:
    """Add a text field, and players for the best clips, to a tab of the page."""
    if split is None:
        raise BadRequest(f"{run.system} is a retriever, which needs clips to search; give --data DIR")
    clips = SearchableClips(run, split)

    def search(text: str) -> list[Any]:
        if not text.strip():
            raise _error("Write a text to search for.")
        try:
            matches = clips.search_text(text, PLAYERS)
        except BadRequest as error:
            raise _error(str(error)) from None
        players = []
        for match in matches:
            parts = [number(match.score), *filter(None, [match.caption]), match.file_name]
            players.append(gradio.Audio(str(match.path), label=" · ".join(parts), visible=True))
        hidden = [gradio.Audio(None, visible=False)] * (PLAYERS - len(players))
        return players + hidden

    gradio.Markdown(f"Search the {len(split.clips)} clips of the split {split.name}.")
    text = gradio.Textbox(label="Text", placeholder="a dog barks in the rain", max_lines=1)
    button = gradio.Button("Search", variant="primary")
    # Only the button for downloads is shown, because Gradio's button for sharing would upload the sound.
    players = [gradio.Audio(visible=False, interactive=False, buttons=["download"]) for _ in range(PLAYERS)]
    gradio.on([button.click, text.submit], search, text, players, concurrency_id=ONE_AT_A_TIME)


def _add_captions(run: LoadedRun) -> None:
    """Add a field for a sound, and a table of its captions, to a tab of the page."""

    def caption(path: str | None) -> str:
        if path is None:
            raise _error("Upload or record a sound first.")
        try:
            captions = captions_of(run.model, Path(path))
        except UnusableSound as reason:
            raise _error(f"{Path(path).name}: {reason}") from None
        except BadRequest as error:
            raise _error(str(error)) from None
        rows = [[text, number(log_probability, 2)] for text, log_probability in captions]
        return html_table(rows, ["caption", "log-probability"], numbers=[1], notes=[])

    sound = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Sound", buttons=[])
    button = gradio.Button("Caption", variant="primary")
    table = gradio.HTML()
    button.click(caption, sound, table, concurrency_id=ONE_AT_A_TIME)


def _error(message: str) -> gradio.Error:
    """Return an error that the page shows. Its message is escaped, because Gradio interprets it as HTML."""
    return gradio.Error(html.escape(message), print_exception=False)
