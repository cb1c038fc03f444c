"""retval: the error numbers of VPP's API that we meet, and their names for people. Numbers: vnet/error.h."""

from __future__ import annotations

from enum import IntEnum


class Retval(IntEnum):
    """VNET_API_ERROR_* of VPP."""

    UNSPECIFIED = -1
    INVALID_SW_IF_INDEX = -2
    NO_SUCH_FIB = -3
    NO_SUCH_ENTRY = -6
    INVALID_VALUE = -7
    INVALID_VALUE_2 = -8
    UNIMPLEMENTED = -9
    SYSCALL_ERROR_1 = -11
    SYSCALL_ERROR_2 = -12
    FEATURE_DISABLED = -30
    INVALID_REGISTRATION = -31
    NO_MATCHING_INTERFACE = -54
    NO_SUCH_TABLE = -65
    SUBIF_ALREADY_EXISTS = -68
    INVALID_MEMORY_SIZE = -70
    INVALID_INTERFACE = -71
    INVALID_ARGUMENT = -73
    IF_ALREADY_EXISTS = -79
    VALUE_EXIST = -81
    ADDRESS_IN_USE = -105
    ADDRESS_NOT_IN_USE = -106
    ADDRESS_FOUND_FOR_INTERFACE = -114
    ENTRY_ALREADY_EXISTS = -116
    BD_ALREADY_EXISTS = -119
    BD_IN_USE = -120
    UNSUPPORTED = -126
    DUPLICATE_IF_ADDRESS = -127
    INIT_FAILED = -144
    NETLINK_ERROR = -145
    BD_ALREADY_HAS_BVI = -152
    RSRC_IN_USE = -155
    NO_CHANGE = -160
    LIMIT_EXCEEDED = -162
    EAGAIN = -165
    BUSY = -167


def text(retval: int) -> str:
    """ "no such entry (-6)"; the bare number where it has no name here."""
    try:
        return f"{Retval(retval).name.lower().replace('_', ' ')} ({retval})"
    except ValueError:
        return f"error {retval}"
