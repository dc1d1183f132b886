"""The service API of a hub: one HTTPS request at a time, with the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse
from typing import Any, Iterator, Mapping, Optional

_TOKEN_LIFE = 3600
_API_VERSION = "2021-04-12"


class ServiceError(RuntimeError):
    """The hub refused a request; the text is the hub's own and says what to do."""


def parse_connection_string(text: str) -> dict[str, str]:
    """The parts of a connection string by their names."""
    return dict(part.split("=", 1) for part in text.split(";") if "=" in part)


class Service:
    """Asks one hub."""

    def __init__(self, address: str, connection_string: str, ca: str) -> None:
        self._address = address
        self._parts = parse_connection_string(connection_string)
        self._context = ssl.create_default_context(cafile=ca)

    def _token(self) -> str:
        host, name = self._parts["HostName"], self._parts["SharedAccessKeyName"]
        expiry = int(time.time()) + _TOKEN_LIFE
        resource = urllib.parse.quote(host, safe="")
        key = base64.b64decode(self._parts["SharedAccessKey"])
        digest = hmac.new(key, f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
        signature = urllib.parse.quote(base64.b64encode(digest), safe="")
        return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}"

    def open(
        self, method: str, path: str, body: Any = None, timeout: Optional[float] = 30, **query: Any
    ) -> http.client.HTTPResponse:
        """Sends one request. The answer's body is still to be read.

        Raises:
            ServiceError: the hub refused it.
        """
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=timeout)
        query = {"api-version": _API_VERSION, **query}
        headers = {"Authorization": self._token(), "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        connection.request(method, f"{path}?{urllib.parse.urlencode(query)}", data, headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise ServiceError(f"{method} {path}: {response.status} {response.read().decode(errors='replace')}")
        return response

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Sends one request and gives the JSON of the answer; `None` where it has no body."""
        with self.open(method, path, body, **query) as response:
            text = response.read()
        return json.loads(text) if text else None

    def lines(self, path: str, timeout: Optional[float], **query: Any) -> Iterator[Mapping[str, Any]]:
        """The JSON of each line of a stream, until nothing came for `timeout` seconds."""
        try:
            with self.open("GET", path, timeout=timeout, **query) as response:
                for line in response:
                    yield json.loads(line)
        except TimeoutError:
            return
