"""One file for each benchmark; its docstring says what is inside the measured region."""
