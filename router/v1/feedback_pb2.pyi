from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Quality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUALITY_UNSPECIFIED: _ClassVar[Quality]
    QUALITY_GOOD: _ClassVar[Quality]
    QUALITY_BAD: _ClassVar[Quality]
QUALITY_UNSPECIFIED: Quality
QUALITY_GOOD: Quality
QUALITY_BAD: Quality

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("request_id", "quality", "sufficient_tier", "score", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    SUFFICIENT_TIER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    quality: Quality
    sufficient_tier: str
    score: float
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., quality: _Optional[_Union[Quality, str]] = ..., sufficient_tier: _Optional[str] = ..., score: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("already_reported",)
    ALREADY_REPORTED_FIELD_NUMBER: _ClassVar[int]
    already_reported: bool
    def __init__(self, already_reported: _Optional[bool] = ...) -> None: ...
