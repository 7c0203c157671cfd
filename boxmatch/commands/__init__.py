"""One module per command of the `boxmatch` program; each has `run(arguments) -> exit code`."""
