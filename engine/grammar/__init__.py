"""Grammar text in Lark, without a compiler. Imports `json_schema` and the root."""
