"""Fixtures for pytest: `iothub`, a hub for the whole session, and `iothub_device`, a device of its own for each test.

The SDKs in this process trust the hub while it runs: the variables that name a CA are set, and so is the bundle of
certifi, which azure-iot-hub's AMQP half reads and no variable changes.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Iterator

import pytest

from ._hub import Device, Hub


@pytest.fixture(scope="session")
def iothub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """An IoT Hub of this session's own; with pytest-xdist, one for each worker."""
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in hub.environ.items():
            patch.setenv(name, value)
        _trust_by_certifi(patch, hub, tmp_path_factory.mktemp("devicebound") / "bundle.pem")
        yield hub


@pytest.fixture
def iothub_device(iothub: Hub) -> Device:
    """A device that no other test uses."""
    return iothub.add_device(f"test-{uuid.uuid4()}")


def _trust_by_certifi(patch: pytest.MonkeyPatch, hub: Hub, bundle: Path) -> None:
    try:
        import certifi
    except ImportError:
        return
    bundle.write_text(Path(certifi.where()).read_text() + Path(hub.ca).read_text())
    patch.setattr(certifi, "where", lambda: str(bundle))
