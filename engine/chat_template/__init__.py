"""Messages to prompt text, by the model's own chat template. Imports `dialects`, `notations` and `tokenizer`."""
