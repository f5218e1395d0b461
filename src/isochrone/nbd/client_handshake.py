"""The client's side of the handshake, over a blocking socket: GO with structured replies and base:allocation.

A server that refuses structured replies or metadata contexts is taken as it is; one that does not know GO is
not.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from struct import Struct
from typing import Final

from isochrone.model.errors import ProtocolError, UnavailableError
from isochrone.nbd import constants as c
from isochrone.nbd.constants import Info, Option, OptionReply

_GREETING: Final = Struct(">QQH")
_OPTION: Final = Struct(">QII")
_REPLY: Final = Struct(">QIII")
_REPLY_LENGTH_MAX: Final = 64 << 10


@dataclass(slots=True)
class Offer:
    """What a server offers. `flags`: transmission flags. Block sizes not sent are the specification's defaults."""

    size_bytes: int = 0
    flags: int = 0
    name: str = ""
    description: str = ""
    block_size_min: int = 1
    block_size_preferred: int = 4096
    request_length_max: int = c.REQUEST_LENGTH_MAX
    structured_replies: bool = False
    block_status: bool = False


def negotiate(connected: socket.socket, export: str) -> Offer:
    """Choose `export` on a fresh connection and enter the transmission phase.

    Raises UnavailableError if the server refuses, ProtocolError if it does not speak fixed newstyle NBD,
    OSError.
    """
    init_magic, option_magic, flags = _GREETING.unpack(_receive(connected, _GREETING.size))
    if init_magic != c.INIT_MAGIC or option_magic != c.OPTION_MAGIC or not flags & c.FLAG_FIXED_NEWSTYLE:
        raise ProtocolError("this is no NBD server of the fixed newstyle kind")
    connected.sendall((flags & (c.FLAG_FIXED_NEWSTYLE | c.FLAG_NO_ZEROES)).to_bytes(4, "big"))
    offer = Offer()
    name = export.encode()
    prefixed_name = len(name).to_bytes(4, "big") + name
    offer.structured_replies = _ask(connected, Option.STRUCTURED_REPLY, b"") is not None
    if offer.structured_replies:
        context = c.META_CONTEXT_ALLOCATION.encode()
        query = prefixed_name + (1).to_bytes(4, "big") + len(context).to_bytes(4, "big") + context
        offer.block_status = bool(_ask(connected, Option.SET_META_CONTEXT, query))
    wanted = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)
    wants = len(wanted).to_bytes(2, "big") + b"".join(info.to_bytes(2, "big") for info in wanted)
    infos = _ask(connected, Option.GO, prefixed_name + wants, required=True)
    for kind, data in infos or ():
        if kind == OptionReply.INFO:
            _take_info(offer, data)
    return offer


def list_exports(connected: socket.socket) -> list[str]:
    """Return the names of a server's exports, on a fresh connection, which is of no use afterwards."""
    _, _, flags = _GREETING.unpack(_receive(connected, _GREETING.size))
    connected.sendall((flags & c.FLAG_FIXED_NEWSTYLE).to_bytes(4, "big"))
    servers = _ask(connected, Option.LIST, b"", required=True)
    names = [data[4 : 4 + int.from_bytes(data[:4], "big")].decode() for _, data in servers or ()]
    _ask(connected, Option.ABORT, b"")
    return names


def _ask(
    connected: socket.socket, option: Option, data: bytes, *, required: bool = False
) -> list[tuple[int, bytes]] | None:
    """Send an option; return its (type, data) replies before the ACK, None if refused and not `required`."""
    connected.sendall(_OPTION.pack(c.OPTION_MAGIC, option, len(data)) + data)
    replies: list[tuple[int, bytes]] = []
    while True:
        magic, number, kind, length = _REPLY.unpack(_receive(connected, _REPLY.size))
        if magic != c.OPTION_REPLY_MAGIC or number != option or length > _REPLY_LENGTH_MAX:
            raise ProtocolError(f"the server's reply to {option.name} makes no sense")
        reply_data = _receive(connected, length)
        if kind == OptionReply.ACK:
            return replies
        if kind & c.OPTION_REPLY_ERROR_BIT:
            if not required:
                return None
            raise UnavailableError(
                f"the NBD server refused {option.name}: {reply_data.decode(errors='replace') or hex(kind)}"
            )
        replies.append((kind, reply_data))


def _take_info(offer: Offer, data: bytes) -> None:
    kind, payload = int.from_bytes(data[:2], "big"), data[2:]
    if kind == Info.EXPORT:
        offer.size_bytes, offer.flags = (
            int.from_bytes(payload[:8], "big"),
            int.from_bytes(payload[8:10], "big"),
        )
    elif kind == Info.NAME:
        offer.name = payload.decode()
    elif kind == Info.DESCRIPTION:
        offer.description = payload.decode()
    elif kind == Info.BLOCK_SIZE:
        offer.block_size_min, offer.block_size_preferred, offer.request_length_max = Struct(">III").unpack(
            payload
        )


def _receive(connected: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        part = connected.recv(size_bytes - len(data))
        if not part:
            raise UnavailableError("the NBD server closed the connection in the handshake")
        data += part
    return bytes(data)
