"""The handshake phase: fixed newstyle negotiation, bytes in and bytes out, without I/O.

::

    GREETING --client flags--> OPTIONS --GO, EXPORT_NAME--> AGREED      (transmission begins)
                                  |-----ABORT-------------> ENDED
                                  `-----violation---------> BROKEN     (close at once)

Options are answered one by one. What an option changes (structured replies, the metadata context) is
remembered until an export is chosen. A client may send options that we do not know, or with data that makes
no sense: it gets an error reply and goes on. Only where the specification leaves no reply (wrong magic,
unknown client flags, EXPORT_NAME that cannot be had) the connection is closed. Data beyond OPTION_LENGTH_MAX
is skipped, not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final

from isochrone.model.errors import IsochroneError, NotFoundError
from isochrone.nbd import constants as c
from isochrone.nbd.constants import Info, Option, OptionReply
from isochrone.nbd.contexts import (
    CONTEXTS_SELECTED_MAX,
    SelectedContext,
    close_contexts,
    context_id,
    listed_contexts,
    open_contexts,
    selected_contexts,
)
from isochrone.nbd.export import Export, Exports
from isochrone.nbd.terms import Terms, terms_of

_GREETING: Final = Struct(">QQH").pack(c.INIT_MAGIC, c.OPTION_MAGIC, c.FLAG_FIXED_NEWSTYLE | c.FLAG_NO_ZEROES)
_CLIENT_FLAGS: Final = Struct(">I")
_OPTION: Final = Struct(">QII")
_REPLY: Final = Struct(">QIII")
_U32: Final = Struct(">I")
_U16: Final = Struct(">H")
_EXPORT_NAME_ANSWER: Final = Struct(">QH")
_INFO_EXPORT: Final = Struct(">HQH")
_INFO_BLOCK_SIZE: Final = Struct(">HIII")
_CLIENT_FLAGS_KNOWN: Final = c.CLIENT_FLAG_FIXED_NEWSTYLE | c.CLIENT_FLAG_NO_ZEROES


class State(Enum):
    """Where a negotiation stands; see the module's picture."""

    GREETING = "greeting"
    OPTIONS = "options"
    AGREED = "agreed"
    ENDED = "ended"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The export a client chose, what it selected to be told of it (both opened, to be closed by whoever takes them), and
    the terms it was given.
    """

    export: Export
    contexts: tuple[SelectedContext, ...]
    terms: Terms

    def close(self, exports: Exports) -> None:
        """Give back what was opened. Called once."""
        close_contexts(self.contexts)
        exports.close(self.export)


class _BadOptionError(Exception):
    """The data of an option does not parse, or asks for what is not there; answered with `reply`."""

    def __init__(self, reply: OptionReply, message: str) -> None:
        super().__init__(message)
        self.reply = reply
        self.message = message


class Handshake:
    """One negotiation, server side.

    `receive` takes bytes as they arrive, cut anywhere, and returns the bytes to send. Once `state` is AGREED,
    `agreement` is set and `leftover` holds what the client sent beyond the handshake. Once it is ENDED or
    BROKEN the connection is to be closed after the returned bytes; `reason` says why.
    """

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._received = bytearray()
        self._skip_bytes = 0
        self._option_count = 0
        self._no_zeroes = False
        self._structured_replies = False
        self._context_export: str | None = None
        self._context_names: list[str] = []
        self.state = State.GREETING
        self.agreement: Agreement | None = None
        self.reason = ""

    @staticmethod
    def greeting() -> bytes:
        """Return what the server sends first."""
        return _GREETING

    @property
    def is_open(self) -> bool:
        """Whether the negotiation still goes on."""
        return self.state in (State.GREETING, State.OPTIONS)

    @property
    def leftover(self) -> bytes:
        """Bytes received and not used."""
        return bytes(self._received)

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take `data`, return the replies it calls for."""
        self._received += data
        replies: list[bytes] = []
        while self.is_open:
            reply = self._receive_flags() if self.state is State.GREETING else self._receive_option()
            if reply is None:
                break
            replies.append(reply)
        return b"".join(replies)

    def _receive_flags(self) -> bytes | None:
        if len(self._received) < _CLIENT_FLAGS.size:
            return None
        (flags,) = _CLIENT_FLAGS.unpack_from(self._received)
        del self._received[: _CLIENT_FLAGS.size]
        if flags & ~_CLIENT_FLAGS_KNOWN:
            return self._break(f"client flags {flags:#x} are not known here")
        self._no_zeroes = bool(flags & c.CLIENT_FLAG_NO_ZEROES)
        self.state = State.OPTIONS
        return b""

    def _receive_option(self) -> bytes | None:
        """Answer the option at the front of what was received; None when it is not complete."""
        if self._skip_bytes:
            skipped_bytes = min(self._skip_bytes, len(self._received))
            del self._received[:skipped_bytes]
            self._skip_bytes -= skipped_bytes
        if self._skip_bytes or len(self._received) < _OPTION.size:
            return None
        magic, number, length = _OPTION.unpack_from(self._received)
        if magic != c.OPTION_MAGIC:
            return self._break(f"an option starts with {magic:#018x} instead of the option magic")
        too_long = length > c.OPTION_LENGTH_MAX
        if not too_long and len(self._received) < _OPTION.size + length:
            return None
        self._option_count += 1
        if self._option_count > c.OPTIONS_MAX:
            return self._break(f"more than {c.OPTIONS_MAX} options without choosing an export")
        kept_bytes = 0 if too_long else length
        data = bytes(self._received[_OPTION.size : _OPTION.size + kept_bytes])
        del self._received[: _OPTION.size + kept_bytes]
        self._skip_bytes = length - kept_bytes
        return self._answer(number, data, too_long=too_long)

    def _answer(self, number: int, data: bytes, *, too_long: bool) -> bytes:
        try:
            option = Option(number)
        except ValueError:
            return _error(number, OptionReply.ERR_UNSUP, f"option {number} is not supported here")
        if option is Option.ABORT:
            self.state, self.reason = State.ENDED, "the client gave the negotiation up"
            return _reply(option, OptionReply.ACK)
        if option is Option.EXPORT_NAME:
            return self._handle_export_name(data, too_long=too_long)
        try:
            if too_long:
                raise _BadOptionError(
                    OptionReply.ERR_TOO_BIG, f"at most {c.OPTION_LENGTH_MAX} bytes of option data"
                )
            match option:
                case Option.LIST:
                    return self._handle_list(data)
                case Option.STRUCTURED_REPLY:
                    return self._handle_structured_reply(data)
                case Option.INFO | Option.GO:
                    return self._handle_info(option, data)
                case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                    return self._handle_meta_context(option, data)
        except _BadOptionError as error:
            return _error(option, error.reply, error.message)

    # --- the options ---

    def _handle_export_name(self, data: bytes, *, too_long: bool) -> bytes:
        try:
            if too_long:
                raise _BadOptionError(OptionReply.ERR_TOO_BIG, "the export name is too long")
            agreement = self._agree(_name_of(data))
        except _BadOptionError as error:
            return self._break(error.message)
        self._enter_transmission(agreement)
        zeroes = b"" if self._no_zeroes else bytes(c.EXPORT_NAME_ZEROES)
        return _EXPORT_NAME_ANSWER.pack(agreement.terms.size_bytes, agreement.terms.flags) + zeroes

    def _handle_list(self, data: bytes) -> bytes:
        _check_no_data(Option.LIST, data)
        names = [name.encode() for name in self._exports.names()]
        servers = [_reply(Option.LIST, OptionReply.SERVER, _U32.pack(len(name)) + name) for name in names]
        return b"".join(servers) + _reply(Option.LIST, OptionReply.ACK)

    def _handle_structured_reply(self, data: bytes) -> bytes:
        _check_no_data(Option.STRUCTURED_REPLY, data)
        self._structured_replies = True
        return _reply(Option.STRUCTURED_REPLY, OptionReply.ACK)

    def _handle_info(self, option: Option, data: bytes) -> bytes:
        fields = _Fields(data)
        name = fields.string()
        wanted = {fields.u16() for _ in range(fields.u16())}
        fields.end()
        agreement = self._agree(name)
        infos = b"".join(_reply(option, OptionReply.INFO, info) for info in _infos(agreement, wanted))
        if option is Option.GO:
            self._enter_transmission(agreement)
        else:
            agreement.close(self._exports)
        return infos + _reply(option, OptionReply.ACK)

    def _handle_meta_context(self, option: Option, data: bytes) -> bytes:
        setting = option is Option.SET_META_CONTEXT
        if setting:
            self._context_export = None  # whatever becomes of this request, it replaces the earlier selection
        if not self._structured_replies:
            raise _BadOptionError(OptionReply.ERR_INVALID, "negotiate structured replies first")
        fields = _Fields(data)
        name = self._resolve(fields.string())
        queries = [fields.text().decode(errors="replace") for _ in range(fields.u32())]
        fields.end()
        offered = self._exports.contexts(name)
        if not setting:
            listed = listed_contexts(offered, queries)
            return b"".join([_context(option, 0, one) for one in listed]) + _reply(option, OptionReply.ACK)
        selected = selected_contexts(offered, queries)
        if len(selected) > CONTEXTS_SELECTED_MAX:
            raise _BadOptionError(
                OptionReply.ERR_TOO_BIG, f"select at most {CONTEXTS_SELECTED_MAX} metadata contexts"
            )
        self._context_export, self._context_names = name, selected
        answers = [_context(option, context_id(position), one) for position, one in enumerate(selected)]
        return b"".join(answers) + _reply(option, OptionReply.ACK)

    # --- shared by them ---

    def _resolve(self, name: str) -> str:
        """Return the export that `name` means: empty means the default."""
        names = self._exports.names()
        if not name and (default := self._exports.default()):
            return default
        if name in names:
            return name
        if not name:
            message = f"there is no default among {len(names)} exports: ask for one by name"
        else:
            message = f"there is no export {name[:80]!r} here"
        raise _BadOptionError(OptionReply.ERR_UNKNOWN, message)

    def _agree(self, name: str) -> Agreement:
        """Open the export `name` on the terms negotiated so far."""
        resolved = self._resolve(name)
        names = self._context_names if self._context_export == resolved else []
        try:
            export = self._exports.open(resolved)
            try:
                contexts = open_contexts(export, names)
            except IsochroneError:
                self._exports.close(export)
                raise
        except NotFoundError as error:
            raise _BadOptionError(OptionReply.ERR_UNKNOWN, error.message) from error
        except IsochroneError as error:
            raise _BadOptionError(OptionReply.ERR_POLICY, error.message) from error
        terms = terms_of(export, structured_replies=self._structured_replies, context_count=len(contexts))
        return Agreement(export, contexts, terms)

    def _enter_transmission(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.state = State.AGREED

    def _break(self, reason: str) -> bytes:
        self.state, self.reason = State.BROKEN, reason
        return b""


class _Fields:
    """Reads the data of one option; whatever does not fit is ERR_INVALID."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def _take(self, size_bytes: int) -> bytes:
        start, self._position = self._position, self._position + size_bytes
        if self._position > len(self._data):
            raise _BadOptionError(OptionReply.ERR_INVALID, "the option data ends in the middle of a field")
        return self._data[start : self._position]

    def u16(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def text(self) -> bytes:
        return self._take(self.u32())

    def string(self) -> str:
        return _name_of(self.text())

    def end(self) -> None:
        if self._position != len(self._data):
            raise _BadOptionError(OptionReply.ERR_INVALID, "the option data goes on after its last field")


def _name_of(data: bytes) -> str:
    """Return an export name as text ("Conventions": UTF-8, no NUL, at most 4096 bytes)."""
    if len(data) > c.STRING_BYTES_MAX:
        raise _BadOptionError(OptionReply.ERR_INVALID, f"a name has at most {c.STRING_BYTES_MAX} bytes")
    if b"\0" in data:
        raise _BadOptionError(OptionReply.ERR_INVALID, "a name has no NUL bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _BadOptionError(OptionReply.ERR_INVALID, "a name is UTF-8 text") from error


def _check_no_data(option: Option, data: bytes) -> None:
    if data:
        raise _BadOptionError(OptionReply.ERR_INVALID, f"{option.name} takes no data")


def _infos(agreement: Agreement, wanted: set[int]) -> Iterator[bytes]:
    """Yield the information payloads: EXPORT always, the others when wanted."""
    export, terms = agreement.export, agreement.terms
    yield _INFO_EXPORT.pack(Info.EXPORT, terms.size_bytes, terms.flags)
    if Info.NAME in wanted:
        yield _U16.pack(Info.NAME) + export.name.encode()
    if Info.DESCRIPTION in wanted and export.description:
        yield _U16.pack(Info.DESCRIPTION) + export.description.encode()[: c.STRING_BYTES_MAX]
    if Info.BLOCK_SIZE in wanted:
        yield _INFO_BLOCK_SIZE.pack(
            Info.BLOCK_SIZE, terms.block_size_min, terms.block_size_preferred, c.REQUEST_LENGTH_MAX
        )


def _context(option: int, number: int, name: str) -> bytes:
    return _reply(option, OptionReply.META_CONTEXT, _U32.pack(number) + name.encode())


def _reply(option: int, reply: OptionReply, data: bytes = b"") -> bytes:
    return _REPLY.pack(c.OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def _error(option: int, reply: OptionReply, message: str) -> bytes:
    return _reply(option, reply, message.encode()[: c.STRING_BYTES_MAX])
