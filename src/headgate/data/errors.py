from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used as given; the message says where and what to do."""
