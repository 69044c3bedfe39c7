"""Types of what is sent and received. They are as loose as JSON is: looking inside is the tests' business."""

from typing import Any

JsonValue = Any
Json = dict[str, Any]
# A client library's object. Its own types call fields optional that a test relies on.
Client = Any
