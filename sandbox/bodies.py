"""What a JSON body may hold: each has a model, and pydantic says what is wrong with it."""

import json
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

JsonObject = dict[str, Any]
Text = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    """Only the fields that the model names, each of its own type; null is the same as leaving a field out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    null_is_a_value: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        # NaN and a lone surrogate can be parsed, but not be written back.
        json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
        droppable = cls.model_fields.keys() - cls.null_is_a_value
        return {name: value for name, value in given.items() if value is not None or name not in droppable}

    def given(self) -> JsonObject:
        """Return the fields that the body named."""
        return {name: getattr(self, name) for name in self.model_fields_set}
