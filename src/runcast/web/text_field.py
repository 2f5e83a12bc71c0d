"""Text in bodies and queries that is stored or compared: no NUL, which databases refuse."""

from typing import Annotated

from pydantic import Field

Text = Annotated[str, Field(strict=True, pattern=r"^[^\x00]*$", max_length=2048)]
Tag = Annotated[str, Field(strict=True, pattern=r"^[^\x00-\x1f]*$", max_length=128)]
ShortText = Annotated[str, Field(strict=True, pattern=r"^[^\x00]*$", min_length=1, max_length=512)]
