"""A W&B server on loopback that does what wandb 0.31 needs to go online, upload and sync runs; it fails on demand."""

import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["hang", "500", "garbage", "401"]
KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, which is all that wandb checks


@dataclass
class Run:
    """What the server has received of one run."""

    lines: dict[str, dict[int, str]] = field(default_factory=dict)  # lines by number, for each file
    files: dict[str, bytes] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    exit_codes: list[int] = field(default_factory=list)  # one for each time the run was declared finished

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows of the history, in the order of their line numbers."""
        streamed = self.lines.get("wandb-history.jsonl", {})
        return [json.loads(streamed[i]) for i in sorted(streamed)]

    def count(self, name: str) -> int:
        return max(self.lines.get(name, {}), default=-1) + 1

    def last(self, name: str) -> str | None:
        streamed = self.lines.get(name, {})
        return streamed[max(streamed)] if streamed else None


class WandbStub:
    """A server that runs from `start` to `stop`; `fault` may change at any time, also during a run.

    Attributes:
        fault: How the server fails at every request from now on; None if it answers.
        runs: What the server has received, by run id.
        requests: GraphQL operations and paths in order of arrival, including failed ones.
        projects: Names of the projects whose views can be asked for.
        views: Saved views by name: id, name, displayName and spec (JSON).
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.runs: dict[str, Run] = {}
        self.requests: list[str] = []
        self.projects: set[str] = set()
        self.views: dict[str, dict[str, str]] = {}
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start to listen; after a `stop`, on the same port as before."""
        assert self._server is None
        self._released.clear()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop the server: from now on, connections are refused."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def heal(self) -> None:
        """Make the server work again, whatever was wrong with it."""
        self.fault = None
        self._released.set()
        if self._server is None:
            self.start()

    def wait_until_released(self) -> None:
        self._released.wait(timeout=300)

    def graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the `data` of the answer to an operation; empty for operations that the tests do not need."""
        match operation:
            case "Viewer":
                viewer = {"id": "u", "entity": "tester", "username": "tester", "email": "", "flags": "{}"}
                return {"viewer": {**viewer, "teams": {"edges": []}}}
            case "GetDefaultEntity":
                return {"viewer": {"__typename": "User", "id": "u", "entity": "tester"}}
            case "View":
                known = given["projectName"] in self.projects
                found = [self.views[name] for name in self.views if name == given["viewName"]]
                return {"project": {"allViews": {"edges": [{"node": node} for node in found]}} if known else None}
            case "UpsertView2":
                known = given["name"] in self.views
                node = {key: given[key] for key in ("name", "displayName", "spec")}
                self.views[given["name"]] = {"id": given.get("id") or f"view {len(self.views)}", **node}
                return {"upsertView": {"view": self.views[given["name"]], "inserted": not known}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "UpsertBucket":
                return {"upsertBucket": self._upsert(given)}
            case "RunResumeStatus":
                return {"model": {**_project(given.get("project")), "bucket": self._bucket(given["name"])}}
            case "CreateRunFiles":
                where = f"{self.url}/storage/{given['run']}/"
                urls = [{"name": name, "uploadUrl": where + urllib.parse.quote(name)} for name in given["files"]]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": urls}}
        return {}

    def receive(self, run_id: str, sent: dict[str, Any]) -> None:
        """Store one request of a run's stream."""
        run = self.runs[run_id]
        for name, chunk in (sent.get("files") or {}).items():
            lines = run.lines.setdefault(name, {})
            lines.update(enumerate(chunk["content"], start=chunk["offset"]))
        if sent.get("complete"):
            run.exit_codes.append(sent["exitcode"])

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], Run())
        run.config.update(json.loads(given.get("config") or "{}"))
        run.display_name = given.get("displayName") or run.display_name
        about = {"id": given["name"], "name": given["name"], "displayName": run.display_name}
        count = run.count("wandb-history.jsonl")
        bucket = {**about, "project": _project(given.get("project")), "historyLineCount": count}
        return {"bucket": bucket, "inserted": inserted}

    def _bucket(self, run_id: str) -> dict[str, Any] | None:
        if (run := self.runs.get(run_id)) is None:
            return None
        tails = {kind: run.last(f"wandb-{kind}.jsonl") for kind in ("history", "events")}
        return {
            "id": run_id,
            "name": run_id,
            "displayName": run.display_name,
            "summaryMetrics": run.last("wandb-summary.json") or "{}",
            "logLineCount": run.count("output.log"),
            "historyLineCount": run.count("wandb-history.jsonl"),
            "eventsLineCount": run.count("wandb-events.jsonl"),
            **{f"{kind}Tail": json.dumps([tail] if tail else []) for kind, tail in tails.items()},
            "config": json.dumps(run.config),
            "wandbConfig": json.dumps({"t": 1}),  # marks the run as started
            "tags": [],
        }


class _Handler(BaseHTTPRequestHandler):
    stub: WandbStub

    def do_GET(self) -> None:
        self._serve(lambda body: {})

    def do_PUT(self) -> None:
        self._serve(self._put)

    def do_POST(self) -> None:
        self._serve(self._graphql if self.path.startswith("/graphql") else self._stream)

    def log_message(self, *_: Any) -> None:
        """Write nothing to stderr."""

    def _serve(self, answer: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.stub.requests.append(_operation(body) or self.path)
        match self.stub.fault:
            case "hang":
                self.stub.wait_until_released()
            case "500":
                self._reply(500, b"something is broken here")
            case "garbage":
                self._reply(200, b"<html>not what you \xff expected")
            case "401":
                self._reply(401, b'{"error": "unknown key"}')
            case None:
                self._reply(200, json.dumps(answer(body)).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _graphql(self, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        return {"data": self.stub.graphql(_operation(body), asked.get("variables") or {})}

    def _stream(self, body: bytes) -> dict[str, Any]:
        if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.stub.receive(match[1], json.loads(body))
        return {}

    def _put(self, body: bytes) -> dict[str, Any]:
        _, _, run_id, name = self.path.split("/", 3)
        self.stub.runs[run_id].files[urllib.parse.unquote(name)] = body
        return {}


def _operation(body: bytes) -> str:
    """The name of the operation in a GraphQL request, or an empty text."""
    try:
        asked = json.loads(body)
        return asked.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]  # type: ignore[index]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _project(name: str | None) -> dict[str, Any]:
    return {"id": "p", "name": name or "uncategorized", "entity": {"id": "e", "name": "tester"}}
