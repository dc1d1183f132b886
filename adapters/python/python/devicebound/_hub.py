"""A hub as a context manager."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import sysconfig
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Mapping, Optional, Sequence, Type

from ._service import Service, ServiceError

_PROGRAM = "devicebound.exe" if os.name == "nt" else "devicebound"
# A hub is ready in under 0.1 s; on a machine that is busy with other tests, later.
_READY_TIME = 30.0
_STOP_TIME = 10.0


class HubError(RuntimeError):
    """The hub did not start; the text is its own and says what to do."""


@dataclass(frozen=True)
class Device:
    """A registered device."""

    device_id: str
    connection_string: str
    """For `IoTHubDeviceClient.create_from_connection_string`."""
    primary_key: str


@dataclass(frozen=True)
class Message:
    """One device-to-cloud message as a back end sees it."""

    cursor: int
    """Its place in the hub's telemetry; `telemetry(after=…)` goes on behind it."""
    device_id: str
    body: bytes
    properties: Mapping[str, Optional[str]]
    system_properties: Mapping[str, Optional[str]]

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def program() -> str:
    """The program that came with this package; `DEVICEBOUND_PROGRAM` names another one."""
    named = os.environ.get("DEVICEBOUND_PROGRAM")
    if named:
        return named
    beside = Path(sysconfig.get_path("scripts")) / _PROGRAM
    if beside.is_file():
        return str(beside)
    found = shutil.which(_PROGRAM)
    if found:
        return found
    raise HubError("the program devicebound is not there; install it again: pip install --force-reinstall devicebound")


class Hub:
    """An IoT Hub that runs until the `with` block ends.

    It has a loopback address of its own (127.0.x.y) with the ports that Azure's SDKs know. `arguments` are further
    flags of `devicebound hub`, for example `["--partitions", "2"]`.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._arguments = list(arguments)
        self._process: Optional[subprocess.Popen[str]] = None
        self._ready: Mapping[str, Any] = {}
        self._service: Optional[Service] = None

    def __enter__(self) -> "Hub":
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the hub and waits until it is ready.

        Raises:
            HubError: it did not start.
        """
        command = [program(), "hub", "--isolated", "--json", "--quiet", *self._arguments]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        lines: "queue.Queue[str]" = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, lines), daemon=True).start()
        try:
            line = lines.get(timeout=_READY_TIME)
        except queue.Empty:
            line = ""
        if not line:
            self._process.kill()
            _, why = self._process.communicate()
            raise HubError(f"the hub did not start: {why.strip() or f'not ready after {_READY_TIME:.0f} s'}")
        self._ready = json.loads(line)
        self._service = Service(self._ready["https"], self.service_connection_string, self.ca)

    def stop(self) -> None:
        """Ends the hub. What it kept is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=_STOP_TIME)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def _field(self, name: str) -> Any:
        if name not in self._ready:
            raise HubError(f"the hub has no `{name}`: start it first, or install a version that has it")
        return self._ready[name]

    @property
    def host(self) -> str:
        """The hub's address, which is its host name, too."""
        return str(self._field("host"))

    @property
    def ca(self) -> str:
        """The path of the certificate that signed the hub's."""
        return str(self._field("ca"))

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables from which SDKs read their CA: `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `NODE_EXTRA_CA_CERTS`, …"""
        return dict(self._field("environment"))

    @property
    def device_connection_string(self) -> str:
        """Of the device `demo`, which every hub starts with."""
        return str(self._field("connectionString"))

    @property
    def service_connection_string(self) -> str:
        """For `IoTHubRegistryManager.from_connection_string` and its like."""
        return str(self._field("serviceConnectionString"))

    @property
    def eventhub_connection_string(self) -> str:
        """Event Hubs-compatible, for `EventHubConsumerClient.from_connection_string`."""
        return str(self._field("eventHubConnectionString"))

    def add_device(self, device_id: str) -> Device:
        """Registers a device with keys.

        Raises:
            ServiceError: there is one with this id, or the id is not allowed.
        """
        path = f"/devices/{urllib.parse.quote(device_id, safe='')}"
        identity = self.request("PUT", path, {"deviceId": device_id})
        key = identity["authentication"]["symmetricKey"]["primaryKey"]
        return Device(device_id, f"HostName={self.host};DeviceId={device_id};SharedAccessKey={key}", key)

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Asks the service API, for example `hub.request("GET", "/twins/demo")`.

        Raises:
            ServiceError: the hub refused it.
        """
        if self._service is None:
            raise HubError("the hub does not run: use `with devicebound.Hub() as hub:`")
        return self._service.ask(method, path, body, **query)

    def telemetry(self, after: int = 0, timeout: Optional[float] = 10.0) -> Iterator[Message]:
        """What devices sent, from the first message behind `after`; ends when nothing came for `timeout` seconds."""
        if self._service is None:
            raise HubError("the hub does not run: use `with devicebound.Hub() as hub:`")
        for line in self._service.lines("/messages/events", timeout, **{"from": after + 1}):
            if "cursor" in line:
                yield Message(
                    line["cursor"],
                    line["deviceId"],
                    base64.b64decode(line["body"]),
                    line["properties"],
                    line["systemProperties"],
                )


def _read(stream: Any, lines: "queue.Queue[str]") -> None:
    """Hands over the first line, and throws away the rest so that the hub never waits for a reader."""
    lines.put(stream.readline())
    for _ in stream:
        pass


__all__ = ["Device", "Hub", "HubError", "Message", "ServiceError", "program"]
